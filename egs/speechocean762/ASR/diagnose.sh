#!/usr/bin/env bash
# What keeps a model from taking off: trains the recipe's model with one thing changed at a time, some CPU minutes each,
# and tells when the error rate on dev fell. What is done is skipped, so that more can be added. curves.json keeps the
# curves, take-off.png shows them.
#
#   --runs "NAME ..."       conformer, or overlays of conf/ after conf/conformer.yaml and conf/short.yaml: adamw+masks
#   --seeds "N ..."         of weights, batches and augmentation
#   --max-steps N           updates of each run; the learning rate has fallen by then
#   --exp-dir DIR           a folder in it for each run and seed: DIR/NAME-sN
#   --threads N             CPU threads

set -euo pipefail
cd "$(dirname "$0")"
. ../../../local/parse_options.sh

runs="conformer adamw masks adamw+masks ctc_third full_context attention local zipformer zipformer+muon"
seeds=42
max_steps=750
exp_dir=exp-diagnose
threads=1
parse_options "$@"
. ../../../tools/setup.sh
export OMP_NUM_THREADS=$threads

for seed in $seeds; do
  for run in $runs; do
    configs=(--config conf/conformer.yaml --config conf/short.yaml)
    for part in ${run//+/ }; do
      [ "$part" = conformer ] || configs+=(--config "conf/$part.yaml")
    done
    dir=$exp_dir/$run-s$seed
    log "$run, seed $seed"
    # A run that has ended ends at once, one that was stopped goes on.
    ./train.py "${configs[@]}" --exp-dir "$dir" --seed "$seed" --max-steps "$max_steps" --valid-every-steps 125 \
      --data.num-workers 0
  done
done

../../../local/learning_curves.py --json curves.json --plot take-off.png --wer 90 80 60 "$exp_dir"/*
