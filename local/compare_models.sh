# Sourced by the recipes' compare.sh: trains several models with the same budget and several seeds by the recipe's
# run.sh, decodes and compares them. Finished runs are skipped, so a comparison can be stopped, continued and extended.
# The results go to comparison.json, from which a page and comparison.png are made. A recipe contains
#
#   #!/usr/bin/env bash
#   # What it compares.
#   set -euo pipefail
#   CDPATH= cd "$(dirname "$0")"
#   . ../../../local/compare_models.sh
#   models="conformer conformer+attention"
#   begin_comparison "$@"
#   compare_models                     # options of run.sh that all runs share

_compare_dir=$(CDPATH= cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$_compare_dir/parse_options.sh"

models=
seeds="42 43 44"
exp_dir=exp-compare
page=RESULTS.md
threads=1
# Configurations that all models share, before and after their own.
before=
after=
prepare_options=
train_options="--keep_last_k 3 --keep_best_k 1"

options_help='
Options of every comparison:

  --models "NAME ..."     conf/NAME.yaml; A+B is conf/A.yaml with the overlay conf/B.yaml, such as conformer+attention;
                          the first is the baseline (default: DEFAULT_MODELS)
  --seeds "N ..."         seeds of weights, batches and augmentation
  --exp-dir DIR           output folder; each model and seed has its own folder DIR/NAME-sN
  --page FILE.md          page to write
  --threads N             CPU threads; times are comparable only for the same number
  --prepare-options "..." options of prepare.sh
  --train-options "..."   options of train.py for all models (default: DEFAULT_OPTIONS)'

begin_comparison() {
  options_help=${options_help/DEFAULT_MODELS/$models}
  options_help=${options_help/DEFAULT_OPTIONS/$train_options}
  parse_options "$@"
  . "$_compare_dir/../tools/setup.sh"
  export OMP_NUM_THREADS=$threads
}

compare_models() {
  local seed model part configs
  for seed in $seeds; do
    for model in $models; do
      configs=$before
      for part in ${model//+/ }; do
        configs+=${configs:+ }conf/$part.yaml
      done
      configs+=${after:+ $after}
      log "$model, seed $seed"
      ./run.sh --exp-dir "$exp_dir/$model-s$seed" --config "$configs" \
        --prepare-options "$prepare_options" --train-options "--seed $seed $train_options" "$@"
    done
  done
  # comparison.json also keeps the results of experiments that were run elsewhere.
  "$_compare_dir/collect_results.py" --out comparison.json "$exp_dir"/*
  "$_compare_dir/write_results.py" --out "$page" --comparison comparison.json --baseline "${models%% *}" \
    --plot comparison.png
}
