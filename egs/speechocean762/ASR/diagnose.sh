#!/usr/bin/env bash
# Finds out why a model does not take off: trains the recipe's model with one change at a time, some CPU minutes each,
# and reports when the error rate on dev fell. Finished runs are skipped, so that more can be added. The curves go to
# curves.json and take-off.png.
#
#   --runs "NAME ..."       conformer, or overlays of conf/conformer.yaml and conf/short.yaml: A+B is conf/A.yaml with
#                           conf/B.yaml, such as adamw+masks
#   --seeds "N ..."         seeds of weights, batches and augmentation
#   --max-steps N           updates of each run; the learning rate has fallen by then
#   --exp-dir DIR           output folder; each run and seed has its own folder DIR/NAME-sN
#   --threads N             CPU threads

set -euo pipefail
CDPATH= cd "$(dirname "$0")"
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
    # A finished run returns at once; an interrupted run continues.
    ./train.py "${configs[@]}" --exp-dir "$dir" --seed "$seed" --max-steps "$max_steps" --valid-every-steps 125 \
      --data.num-workers 0
  done
done

../../../local/learning_curves.py "$exp_dir"/* --json curves.json --plot take-off.png --wer 90 80 60
