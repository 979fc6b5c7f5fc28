#!/usr/bin/env bash
# LibriSpeech from the download to a table of word error rates.
#
#   --subset S                    960: all of it; 100: trained on train-clean-100; mini: mini LibriSpeech (5 hours, no
#                                 test part: dev-clean-2 is both chosen on and decoded), a small model of characters, some
#                                 hours on a CPU (default: 960)

set -euo pipefail
cd "$(dirname "$0")"
. ../../../local/run_stages.sh
subset=960
chunk_ms="1280 640 320"
left_chunks="-1 4"
begin "$@"

case $subset in
  960) train="train-clean-100 train-clean-360 train-other-500" ;;
  100)
    train=train-clean-100
    train_options="--data.train [train-clean-100] $train_options"
    ;;
  mini)
    train=train-clean-5
    splits=${splits:-dev-clean-2}
    [ "$config" != conf/conformer.yaml ] || config=conf/mini.yaml
    prepare_options="--model-type char --speed-perturb= $prepare_options"
    ;;
  *)
    log "--subset is 960, 100 or mini, not '$subset'"
    exit 2
    ;;
esac
prepare_options="--subset $subset $prepare_options"

run_stages librispeech "$train"
