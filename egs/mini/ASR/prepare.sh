#!/usr/bin/env bash
# Prepares the mini corpus: spoken digits and commands, synthesised here, so that nothing has to be downloaded.
#
#   ./prepare.sh [--stage N] [--stop-stage M] [--nj N] ...
#
#   --stage N, --stop-stage M   run only stages N to M (0 synthesise, 1 manifests, 2 features, 3 validate, 4 tokens);
#                               what is done already is skipped, unless its options or an earlier stage have changed
#   --nj N                      processes (default: all processors)
#   --dl-dir DIR                where the audio goes (default: download)
#   --train-hours H             hours of training audio (default: 3)
#   --seed N                    of the corpus
#   --storage S                 numpy_files: features on disk; none: computed while training
#   --model-type T              kind of tokens: char (default), unigram or bpe
#   --vocab-size N              number of tokens, unless they are characters

set -euo pipefail
cd "$(dirname "$0")"

nj=$(getconf _NPROCESSORS_ONLN)
dl_dir=download
train_hours=3
seed=1
storage=numpy_files
vocab_size=80
model_type=char

. ../../../local/parse_options.sh
parse_options "$@"
. ../../../tools/setup.sh

local=../../../local
corpus=$dl_dir/mini
splits="train dev test"

# The script is one of the settings: its lists of voices and sentences are the corpus.
script=$(cksum <local/synthesize_corpus.py)
if stage 0 "Synthesise the corpus" "$corpus/.done" "--train-hours $train_hours --seed $seed, script $script"; then
  local/synthesize_corpus.py --out-dir "$corpus" --train-hours "$train_hours" --seed "$seed" --nj "$nj"
  stage_done
fi

if stage 1 "Manifests" data/manifests/.mini.done "$corpus"; then
  $local/prepare_table.py --table "$corpus/table.tsv" --audio-dir "$corpus" --prefix mini \
    --out-dir data/manifests --nj "$nj"
  stage_done
fi

if stage 2 "Features" data/fbank/.mini.done "--storage $storage"; then
  $local/compute_fbank.py --prefix mini --splits $splits --storage "$storage" --nj "$nj"
  stage_done
fi

if stage 3 "Validate" data/fbank/.mini-validated.done; then
  $local/validate_cuts.py --prefix mini --splits $splits --disjoint-speakers --nj "$nj"
  stage_done
fi

if stage 4 "Tokens" data/lang/.done "--vocab-size $vocab_size --model-type $model_type"; then
  $local/train_bpe.py --supervisions data/manifests/mini_supervisions_train.jsonl.gz \
    --lang-dir data/lang --vocab-size "$vocab_size" --model-type "$model_type"
  stage_done
fi
