#!/usr/bin/env bash
# The whole mini recipe: from nothing to a table of word error rates, offline and streaming, in some minutes on
# two CPU cores. It makes its own Python environment if none is active. What is done already is skipped, and a
# run that was stopped is continued by the same command.
#
#   ./run.sh [--stage N] [--stop-stage M] [--exp-dir exp] [--config conf/conformer.yaml] [--num-epochs N]
#
#   0  prepare the data
#   1  train
#   2  choose (epoch, avg) on dev
#   3  decode test offline, simulated and streaming, and compare the last two utterance by utterance
#   4  print the table, and where the hypotheses and the error reports are
#
# The corpus is synthetic: these error rates say that everything works, not how good it is on human speech.

set -euo pipefail
cd "$(dirname "$0")"

exp_dir=exp
config=conf/conformer.yaml
num_epochs=
. ../../../local/parse_options.sh
parse_options "$@"
. ../../../tools/setup.sh

# Chunk sizes in ms, left context in chunks.
settings="--chunk-ms 640 320 --left-chunks 2"

if [ "$stage" -le 0 ] && [ "$stop_stage" -ge 0 ]; then
  log "Stage 0: prepare the data"
  ./prepare.sh
fi

# Weights of other data would be taken for an earlier part of this training.
data_sum=$(cksum <data/fbank/mini_cuts_train.jsonl.gz)
if [ -e "$exp_dir/.data" ] && [ "$(cat "$exp_dir/.data")" != "$data_sum" ]; then
  log "$exp_dir was trained on other data: remove it, or give another --exp-dir"
  exit 1
fi
mkdir -p "$exp_dir"
echo "$data_sum" >"$exp_dir/.data"

if stage 1 "Train" "$exp_dir/.trained" "$config ${num_epochs:-as in the configuration}"; then
  ./train.py --config "$config" --exp-dir "$exp_dir" ${num_epochs:+--num-epochs "$num_epochs"}
  stage_done
fi

if stage 2 "Choose (epoch, avg) on dev" "$exp_dir/.selected" "$settings"; then
  ./decode.py --exp-dir "$exp_dir" --select --mode offline simulated $settings
  stage_done
fi

if stage 3 "Decode test" "$exp_dir/.decoded" "$settings"; then
  ./decode.py --exp-dir "$exp_dir" --compare --mode offline simulated streaming $settings
  stage_done
fi

if [ "$stage" -le 4 ] && [ "$stop_stage" -ge 4 ]; then
  log "Stage 4: results"
  ./decode.py --exp-dir "$exp_dir" --table
fi
