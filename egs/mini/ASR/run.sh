#!/usr/bin/env bash
# Runs the mini recipe, from the synthesis of the corpus to a table of word error rates, offline and streaming, in 15 to
# 30 minutes on two CPU cores.
#
# The corpus is synthetic: the error rates show that the pipeline works, and say nothing about human speech.

set -euo pipefail
CDPATH= cd "$(dirname "$0")"
. ../../../local/run_stages.sh
# Trained with pauses, because recordings, microphones and other programs add silence around and between utterances.
config="conf/conformer.yaml conf/silence.yaml"
begin "$@"

run_stages mini train
