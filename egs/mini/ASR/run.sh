#!/usr/bin/env bash
# The whole mini recipe: from nothing to a table of word error rates, offline and streaming, in some minutes on
# two CPU cores.
#
# The corpus is synthetic: these error rates say that everything works, not how good it is on human speech.

set -euo pipefail
cd "$(dirname "$0")"
. ../../../local/run_stages.sh
# With pauses in training, for what recordings, microphones and other programs put around and between utterances.
config="conf/conformer.yaml conf/silence.yaml"
begin "$@"

run_stages mini train
