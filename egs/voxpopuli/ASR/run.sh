#!/usr/bin/env bash
# Runs the VoxPopuli recipe for one language, from the download to a table of word error rates.
#
#   --lang L                      language, see ./prepare.sh --help (default: en); --exp-dir is exp-L by default
#   --vocab-size N                number of tokens (default: 1000)

set -euo pipefail
CDPATH= cd "$(dirname "$0")"
. ../../../local/run_stages.sh
lang=en
vocab_size=1000
exp_dir=
left_chunks="4 -1"
begin "$@"

exp_dir=${exp_dir:-exp-$lang}
prepare_arguments+=(--lang "$lang" --vocab-size "$vocab_size")
train_arguments+=(--data.prefix "voxpopuli-$lang" --data.lang-dir "$data_dir/lang_bpe_${vocab_size}_$lang")

run_stages "voxpopuli-$lang" train
