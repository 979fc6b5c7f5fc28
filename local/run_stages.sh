# Sourced by the recipes' run.sh: from nothing to a table of error rates. A recipe reads
#
#   #!/usr/bin/env bash
#   # What it does, and how long it takes.
#   set -euo pipefail
#   cd "$(dirname "$0")"
#   . ../../../local/run_stages.sh
#   num_epochs=10                      # other defaults than those below, and options of its own
#   begin "$@"                         # reads the command line
#   run_stages PREFIX "TRAIN SPLITS"

_stages_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$_stages_dir/parse_options.sh"

exp_dir=exp
config=conf/conformer.yaml
num_epochs=
nproc=
chunk_ms="640 320"
left_chunks=2
splits=
prepare_options=
train_options=

options_help='
  0  prepare the data (./prepare.sh --help)
  1  train
  2  choose (epoch, avg) on the dev splits
  3  decode offline, simulated and streaming, and compare the last two utterance by utterance
  4  print the table, and where the hypotheses and the error reports are; write EXP_DIR/RESULTS.md

What is done already is skipped; a run that was stopped is continued by the same command. A Python environment is made
if none is active.

  --stage N, --stop-stage M     run only stages N to M
  --exp-dir DIR                 checkpoints, logs and results (default: exp)
  --config "FILE ..."           of the model and its training; what comes later wins (default: DEFAULT_CONFIG)
  --num-epochs N                another number of epochs than in that file
  --nproc N                     processes that train together (default: one for each GPU)
  --chunk-ms "640 320"          chunk sizes that are decoded
  --left-chunks "2"             left contexts in chunks, -1: unlimited
  --splits "SPLIT ..."          what is decoded at last (default: the test splits)
  --prepare-options "..."       further options of prepare.sh
  --train-options "..."         further options of train.py, such as "--data.max-duration 300"'

begin() {
  options_help=${options_help/DEFAULT_CONFIG/$config}
  parse_options "$@"
  . "$_stages_dir/../tools/setup.sh"
}

run_stages() {
  local prefix=$1 train=$2 split
  local settings=(--chunk-ms $chunk_ms --left-chunks $left_chunks)

  if [ "$stage" -le 0 ] && [ "$stop_stage" -ge 0 ]; then
    log "Stage 0: prepare the data"
    ./prepare.sh $prepare_options
  fi

  # Weights of other data would be taken for an earlier part of this training.
  local manifests=() data_sum
  for split in $train; do
    manifests+=("data/fbank/${prefix}_cuts_$split.jsonl.gz")
  done
  data_sum=$(cat "${manifests[@]}" | cksum)
  if [ -e "$exp_dir/.data" ] && [ "$(cat "$exp_dir/.data")" != "$data_sum" ]; then
    log "$exp_dir was trained on other data: remove it, or give another --exp-dir"
    exit 1
  fi
  mkdir -p "$exp_dir"
  echo "$data_sum" >"$exp_dir/.data"

  # Noise that has been prepared is mixed in; train.py says so, and where there is none.
  local noise=data/fbank/musan_cuts.jsonl.gz
  [ ! -e "$noise" ] || train_options="--data.noise.manifest $noise $train_options"
  if stage 1 "Train" "$exp_dir/.trained" "$config ${num_epochs:-as in the configuration} $train_options"; then
    nproc=${nproc:-$(python -c 'import torch; print(max(torch.cuda.device_count(), 1))')}
    local launch=(python) file configs=()
    for file in $config; do
      configs+=(--config "$file")
    done
    if [ "$nproc" -gt 1 ]; then
      launch=(torchrun --standalone --nproc-per-node "$nproc")
    fi
    "${launch[@]}" train.py "${configs[@]}" --exp-dir "$exp_dir" ${num_epochs:+--num-epochs "$num_epochs"} \
      $train_options
    stage_done
  fi

  if stage 2 "Choose (epoch, avg) on dev" "$exp_dir/.selected" "${settings[*]}"; then
    ./decode.py --exp-dir "$exp_dir" --select --mode offline simulated "${settings[@]}"
    stage_done
  fi

  [ -z "$splits" ] || settings+=(--splits $splits)
  if stage 3 "Decode" "$exp_dir/.decoded" "${settings[*]}"; then
    ./decode.py --exp-dir "$exp_dir" --compare --mode offline simulated streaming "${settings[@]}"
    stage_done
  fi

  if [ "$stage" -le 4 ] && [ "$stop_stage" -ge 4 ]; then
    log "Stage 4: results"
    ./decode.py --exp-dir "$exp_dir" --table
    "$_stages_dir/write_results.py" --out "$exp_dir/RESULTS.md" "$exp_dir"
  fi
}
