#!/usr/bin/env bash
# Trains several models under the same budget with several seeds, decodes each and compares them. What is done is
# skipped, so that a comparison can be stopped, continued and extended. comparison.json gets the results, RESULTS.md and
# comparison.png are made from it; the first model is the one that others are compared with.
#
#   --models "NAME ..."     conf/NAME.yaml, or conf/NAME.yaml and overlays after it: conformer+attention
#   --seeds "N ..."         of weights, batches and augmentation
#   --exp-dir DIR           a folder in it for each model and seed: DIR/NAME-sN
#   --threads N             CPU threads; seconds are only comparable where this is the same

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

# All that has been decoded, here or elsewhere, into what is committed.
../../../local/collect_results.py --out comparison.json "$exp_dir"/*
../../../local/write_results.py --out RESULTS.md --comparison comparison.json --baseline "${models%% *}" \
  --plot comparison.png
