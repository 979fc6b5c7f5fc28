#!/usr/bin/env bash
# Prepares LibriSpeech.
#
#   ./prepare.sh [--stage N] [--stop-stage M] [--dl-dir DIR] [--parts "dev-clean train-clean-100"] ...
#
#   --stage N, --stop-stage M   run only stages N to M (0 download, 1 manifests, 2 features, 3 validate, 4 tokens);
#                               what is done already is skipped, unless its options or an earlier stage have changed
#   --nj N                      processes (default: all processors)
#   --dl-dir DIR                has, or gets, LibriSpeech/PART/SPEAKER/CHAPTER/*.flac (default: download)
#   --parts "PART ..."          parts to prepare (default: all seven); with --stage 1 those of them that are there
#   --speed-perturb 0.9,1.1     copies of the training parts at these speeds; "" for none
#   --storage S                 numpy_files: features on disk, 0.12 GB an hour (all parts and speeds: 340 GB);
#                               lilcom_chunky: compressed, a third of it, needs "pip install lilcom";
#                               none: computed while training, with --data.on-the-fly true
#   --vocab-size N              number of tokens
#   --model-type T              kind of tokens: unigram, bpe or char
#   --data-dir DIR              where the results go (default: data)

set -euo pipefail
cd "$(dirname "$0")"

nj=$(getconf _NPROCESSORS_ONLN)
dl_dir=download
data_dir=data
parts="dev-clean dev-other test-clean test-other train-clean-100 train-clean-360 train-other-500"
speed_perturb=0.9,1.1
storage=numpy_files
vocab_size=500
model_type=unigram

. ../../../local/parse_options.sh
parse_options "$@"
. ../../../tools/setup.sh

local=../../../local
manifests=$data_dir/manifests
fbank=$data_dir/fbank
lang=$data_dir/lang_bpe_$vocab_size
if [ "$model_type" = char ]; then
  lang=$data_dir/lang_char
fi

if stage 0 "Download" "$data_dir/.download.done" "$dl_dir $parts"; then
  $local/download_librispeech.py --dl-dir "$dl_dir" --parts $parts
  stage_done
fi

train_parts=
eval_parts=
for part in $parts; do
  if [ ! -d "$dl_dir/LibriSpeech/$part" ]; then
    log "$part is not in $dl_dir/LibriSpeech and is left out"
  elif [[ $part == train-* ]]; then
    train_parts="$train_parts $part"
  else
    eval_parts="$eval_parts $part"
  fi
done
if [ -z "$train_parts$eval_parts" ]; then
  log "None of the parts is in $dl_dir/LibriSpeech: give --dl-dir, or download them with --stage 0"
  exit 1
fi

if stage 1 "Manifests" "$manifests/.librispeech.done" "$dl_dir$eval_parts$train_parts"; then
  $local/prepare_librispeech.py --dl-dir "$dl_dir" --parts $eval_parts $train_parts --out-dir "$manifests" --nj "$nj"
  stage_done
fi

if stage 2 "Features" "$fbank/.librispeech.done" "--storage $storage --speed-perturb $speed_perturb"; then
  options="--prefix librispeech --manifest-dir $manifests --out-dir $fbank --storage $storage --nj $nj"
  if [ -n "$eval_parts" ]; then
    $local/compute_fbank.py $options --splits $eval_parts
  fi
  if [ -n "$train_parts" ]; then
    $local/compute_fbank.py $options --splits $train_parts --speed-perturb "$speed_perturb"
  fi
  stage_done
fi

if stage 3 "Validate" "$fbank/.librispeech-validated.done"; then
  $local/validate_cuts.py --prefix librispeech --manifest-dir "$fbank" --splits $eval_parts $train_parts --nj "$nj"
  stage_done
fi

if [ -n "$train_parts" ] && stage 4 "Tokens" "$lang/.done" "--vocab-size $vocab_size --model-type $model_type"; then
  $local/train_bpe.py --lang-dir "$lang" --vocab-size "$vocab_size" --model-type "$model_type" \
    --supervisions $(printf " $manifests/librispeech_supervisions_%s.jsonl.gz" $train_parts)
  stage_done
fi
