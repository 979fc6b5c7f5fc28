#!/usr/bin/env bash
# Runs the @NAME@ recipe, from the audio to a table of word error rates, offline and streaming.

set -euo pipefail
CDPATH= cd "$(dirname "$0")"
. @ROOT@/local/run_stages.sh
begin "$@"

run_stages @NAME@ "@TRAIN@"
