#!/usr/bin/env bash
# Prepares LibriSpeech (OpenSLR 12), or mini LibriSpeech (OpenSLR 31) for a quick try.
# Stage 0 downloads missing parts, stage 1 writes manifests.
#
#   --subset S                  960: all seven parts (60 GB to download, 340 GB of features); 100: train-clean-100 with
#                               the dev and test parts; mini: train-clean-5 and dev-clean-2, 0.5 GB (default: 960)
#   --parts "PART ..."          parts to prepare instead; with --stage 1, missing parts are left out
#
# The audio is in DL_DIR/LibriSpeech/PART/SPEAKER/CHAPTER/*.flac.

set -euo pipefail
CDPATH= cd "$(dirname "$0")"
. ../../../local/prepare_stages.sh
subset=960
parts=
speed_perturb=0.9,1.1
begin "$@"

if [ -z "$parts" ]; then
  case $subset in
    960) parts="train-clean-100 train-clean-360 train-other-500 dev-clean dev-other test-clean test-other" ;;
    100) parts="train-clean-100 dev-clean dev-other test-clean test-other" ;;
    mini) parts="train-clean-5 dev-clean-2" ;;
    *)
      log "--subset is 960, 100 or mini, not '$subset'"
      exit 2
      ;;
  esac
fi

if stage 0 "Download" "$data_dir/.download.done" "$dl_dir $parts"; then
  local/download.py --dl-dir "$dl_dir" --parts $parts
  stage_done
fi

train=
eval=
for part in $parts; do
  if [ ! -d "$dl_dir/LibriSpeech/$part" ]; then
    log "$part is not in $dl_dir/LibriSpeech and is left out"
  elif [[ $part == train-* ]]; then
    train="$train $part"
  else
    eval="$eval $part"
  fi
done
if [ -z "$train$eval" ]; then
  log "None of the parts is in $dl_dir/LibriSpeech: give --dl-dir, or download them with --stage 0"
  exit 1
fi

check_audio "$train $eval" "$manifests/.librispeech.done"
if stage 1 "Manifests" "$manifests/.librispeech.done" "$dl_dir$train$eval"; then
  local/prepare_manifests.py --dl-dir "$dl_dir" --parts $train $eval --out-dir "$manifests" --nj "$nj"
  stage_done
fi

prepare_stages librispeech "$train" "$eval"
