#!/usr/bin/env bash
# Trains several models with the same budget and several seeds, decodes and compares them. Finished runs are skipped, so
# a comparison can be stopped, continued and extended. The results go to comparison.json, from which RESULTS.md and
# comparison.png are made. The first model is the baseline of the comparison.
#
#   --models "NAME ..."     conf/NAME.yaml; A+B is conf/A.yaml with the overlay conf/B.yaml, such as conformer+attention
#   --seeds "N ..."         seeds of weights, batches and augmentation
#   --exp-dir DIR           output folder; each model and seed has its own folder DIR/NAME-sN
#   --threads N             CPU threads; times are comparable only for the same number

set -euo pipefail
cd "$(dirname "$0")"
. ../../../local/parse_options.sh

models="conformer conformer+attention conformer+local zipformer zipformer+attention"
seeds="42 43 44"
exp_dir=exp-compare
threads=1
parse_options "$@"
export OMP_NUM_THREADS=$threads

for seed in $seeds; do
  for model in $models; do
    configs=
    for part in ${model//+/ }; do
      configs+=" conf/$part.yaml"
    done
    log "$model, seed $seed"
    ./run.sh --exp-dir "$exp_dir/$model-s$seed" --config "$configs" \
      --train-options "--seed $seed --keep_last_k 3 --keep_best_k 1"
  done
done

# comparison.json also keeps the results of experiments that were run elsewhere.
../../../local/collect_results.py --out comparison.json "$exp_dir"/*
../../../local/write_results.py --out RESULTS.md --comparison comparison.json --baseline "${models%% *}" \
  --plot comparison.png
