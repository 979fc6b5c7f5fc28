# Sourced by the recipes' run.sh: all stages from the download to a table of error rates. A recipe contains
#
#   #!/usr/bin/env bash
#   # Name of the corpus, and how long it takes.
#   set -euo pipefail
#   CDPATH= cd "$(dirname "$0")"
#   . ../../../local/run_stages.sh
#   num_epochs=10                      # defaults that differ from those below, and more options
#   begin "$@"                         # parses the command line
#   train_arguments+=(--data.prefix "$prefix")    # options that precede the user's; prepare_arguments likewise
#   run_stages PREFIX "TRAIN SPLITS"

_stages_dir=$(CDPATH= cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$_stages_dir/parse_options.sh"

data_dir=data
exp_dir=exp
config=conf/conformer.yaml
num_epochs=
nproc=
chunk_ms="640 320"
left_chunks=2
splits=
prepare_options=
train_options=
# Options of prepare.sh and train.py that the recipe gives. Only the user's string of options is split at spaces.
prepare_arguments=()
train_arguments=()

options_help='
Stages:

  0  prepare the data (./prepare.sh --help)
  1  train
  2  choose (epoch, avg) on the dev splits
  3  decode offline, simulated and streaming, and compare simulated with streaming utterance by utterance
  4  print the table and the paths of hypotheses and error reports; write EXP_DIR/RESULTS.md

Finished stages are skipped, and name the file to remove to run them again; the same command continues after an
interruption. A Python environment is created if none is active. Options of every recipe:

  --stage N, --stop-stage M     run only stages N to M
  --data-dir DIR                prepared data (default: data)
  --exp-dir DIR                 checkpoints, logs and results (default: exp)
  --config "FILE ..."           YAML files; later ones override (default: DEFAULT_CONFIG)
  --num-epochs N                number of epochs, instead of the configured one
  --nproc N                     processes that train and decode together (default: one per GPU)
  --chunk-ms "640 320"          chunk sizes to decode with
  --left-chunks "2"             left contexts to decode with, in chunks; -1: unlimited
  --splits "SPLIT ..."          splits to decode in stage 3 (default: the test splits)
  --prepare-options "..."       more options of prepare.sh
  --train-options "..."         more options of train.py, such as "--data.max-duration 300"'

begin() {
  options_help=${options_help/DEFAULT_CONFIG/$config}
  parse_options "$@"
  . "$_stages_dir/../tools/setup.sh"
}

# Runs a program of the recipe in $nproc processes.
launch() {
  nproc=${nproc:-$(python -c 'import torch; print(max(torch.cuda.device_count(), 1))')}
  if [ "$nproc" -gt 1 ]; then
    torchrun --standalone --nproc-per-node "$nproc" "$@"
  else
    python "$@"
  fi
}

# Prints the configuration that train.py gets by the arguments so far.
print_config() {
  python train.py "${configs[@]}" "${train_arguments[@]}" --print_config
}

# Prints the folder of the tokens in a configuration.
lang_dir_in() {
  python -c 'import sys, yaml; print(yaml.safe_load(sys.stdin)["data"]["lang_dir"])' <<<"$1"
}

# Values of the lines "$1 VALUE" that check_settings.py has printed.
found_as() {
  sed -n "s/^$1 //p" <<<"$found"
}

# The same values in a row, each behind a comma.
row_of() {
  found_as "$1" | sed 's/^/, /' | tr -d '\n'
}

run_stages() {
  local prefix=$1 train=$2 split
  check_names "$prefix" $train $splits
  prepare_arguments+=($prepare_options)
  case " ${prepare_arguments[*]//_/-}" in
    *" --data-dir"*)
      echo "${0##*/}: give --data-dir to ${0##*/} itself, so that training reads the same folder" >&2
      exit 2
      ;;
  esac
  local settings=(--chunk-ms $chunk_ms --left-chunks $left_chunks)

  if [ "$stage" -le 0 ] && [ "$stop_stage" -ge 0 ]; then
    log "Stage 0: prepare the data"
    ./prepare.sh --data-dir "$data_dir" "${prepare_arguments[@]}"
  fi

  local file configs=() printed
  for file in $config; do
    configs+=(--config "$file")
  done
  # Configurations name the folders below data.
  if [ "$data_dir" != data ]; then
    local lang_dir
    printed=$(print_config)
    lang_dir=$(lang_dir_in "$printed")
    train_arguments=(
      --data.manifest-dir "$data_dir/fbank" --data.lang-dir "${lang_dir/#data\//"$data_dir"/}" "${train_arguments[@]}"
    )
  fi

  # Prepared noise is mixed in. train.py prints at the start whether it trains with noise.
  local noise=$data_dir/fbank/musan_cuts.jsonl.gz
  case " ${prepare_arguments[*]} " in
    *" --musan false "* | *" --musan=false "*) ;;
    *) [ ! -e "$noise" ] || train_arguments=(--data.noise.manifest "$noise" "${train_arguments[@]}") ;;
  esac
  train_arguments+=($train_options)
  [ -z "$num_epochs" ] || train_arguments=(--num-epochs "$num_epochs" "${train_arguments[@]}")

  # Checksums of what a stage reads are part of its settings.
  local found= manifest data_sum recorded read_sum=
  if [ "$stage" -le 1 ] && [ "$stop_stage" -ge 1 ]; then
    printed=$(print_config)
    # decode.py reads these settings after days of training.
    found=$("$_stages_dir/check_settings.py" "${settings[@]}" --splits $splits <<<"$printed")
    manifest=$(found_as missing)
    if [ -n "$manifest" ]; then
      log "No ${manifest%%$'\n'*}: run stage 0, or correct --data-dir or --splits; other corpora (data.corpora) are" \
        "prepared in their own recipes"
      exit 1
    fi
    file=$(lang_dir_in "$printed")/bpe.model # train.py has a message if it is missing
    read_sum="with checksum $(cat $config | cksum), tokens $({ cat "$file" 2>/dev/null || true; } | cksum),"
    # Checkpoints from other data would be resumed as an earlier part of this training.
    data_sum=$(
      found_as manifest | while IFS= read -r manifest; do cat "$manifest"; done | cksum
      found_as train
      echo "complete"
    )
    # Earlier versions recorded the first line alone.
    recorded=$(cat "$exp_dir/.data" 2>/dev/null || true)
    case "$data_sum" in "$recorded" | "$recorded"$'\n'*) recorded= ;; esac
    if [ -n "$recorded" ] && [ -n "$(find "$exp_dir/" -maxdepth 1 -name '*.pt' -print -quit)" ]; then
      log "$exp_dir was trained on other data: remove it, or give another --exp-dir (if only the place of the data is" \
        "another one, remove $exp_dir/.data)"
      exit 1
    fi
    echo "$data_sum" | write_whole "$exp_dir/.data"
  fi
  if stage 1 "Train" "$exp_dir/.trained" "$config $read_sum ${train_arguments[*]}"; then
    launch train.py "${configs[@]}" --exp-dir "$exp_dir" "${train_arguments[@]}"
    stage_done
  fi

  # Dev and test splits of this recipe are those that are not trained on.
  read_sum=
  if [ "$stage" -le 3 ] && [ "$stop_stage" -ge 2 ] && [ -e "$exp_dir/config.yaml" ]; then
    found=$("$_stages_dir/check_settings.py" --splits $splits <"$exp_dir/config.yaml")
    read_sum=", data $(
      for manifest in "$(found_as own)"*.jsonl.gz; do
        split=${manifest##*_cuts_}
        case " $train " in *" ${split%.jsonl.gz} "*) ;; *) [ ! -e "$manifest" ] || cat "$manifest" ;; esac
      done | cksum
    )$(row_of dev)"
  fi
  if stage 2 "Choose (epoch, avg) on dev" "$exp_dir/.selected" "${settings[*]}$read_sum"; then
    launch decode.py --exp-dir "$exp_dir" --select --mode offline simulated "${settings[@]}"
    stage_done
  fi

  [ -z "$splits" ] || settings+=(--splits $splits)
  read_sum+=$(row_of test)
  if stage 3 "Decode" "$exp_dir/.decoded" "${settings[*]}$read_sum"; then
    launch decode.py --exp-dir "$exp_dir" --compare --mode offline simulated streaming "${settings[@]}"
    stage_done
  fi

  if [ "$stage" -le 4 ] && [ "$stop_stage" -ge 4 ]; then
    log "Stage 4: results"
    ./decode.py --exp-dir "$exp_dir" --table
    "$_stages_dir/write_results.py" --out "$exp_dir/RESULTS.md" "$exp_dir"
  fi
}
