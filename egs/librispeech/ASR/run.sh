#!/usr/bin/env bash
# Runs the LibriSpeech recipe, from the download to a table of word error rates.
#
#   --subset S                    960: all training data; 100: train-clean-100 only; mini: a small character model on
#                                 mini LibriSpeech (5 hours), in some hours on a CPU. mini has no test part, so
#                                 dev-clean-2 serves for stages 2 and 3 (default: 960)

set -euo pipefail
CDPATH= cd "$(dirname "$0")"
. ../../../local/run_stages.sh
subset=960
chunk_ms="1280 640 320"
left_chunks="-1 4"
begin "$@"

prepare_arguments+=(--subset "$subset")
case $subset in
  960) train="train-clean-100 train-clean-360 train-other-500" ;;
  100)
    train=train-clean-100
    train_arguments+=(--data.train "[train-clean-100]")
    ;;
  mini)
    train=train-clean-5
    splits=${splits:-dev-clean-2}
    [ "$config" != conf/conformer.yaml ] || config=conf/mini.yaml
    prepare_arguments+=(--model-type char --speed-perturb=)
    ;;
  *)
    log "--subset is 960, 100 or mini, not '$subset'"
    exit 2
    ;;
esac

run_stages librispeech "$train"
