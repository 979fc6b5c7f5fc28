#!/usr/bin/env bash
# Prepares the mini corpus: spoken digits and commands, synthesised here, without a download.
# Stage 0 synthesises the audio, stage 1 writes manifests.
#
#   --train-hours H             hours of training audio (default: 3)
#   --seed N                    seed of the corpus (default: 1)

set -euo pipefail
CDPATH= cd "$(dirname "$0")"
. ../../../local/prepare_stages.sh
train_hours=3
seed=1
model_type=char
disjoint_speakers=true
begin "$@"

corpus=$dl_dir/mini
# The script is part of the settings, because its lists of voices and sentences define the corpus.
script=$(cksum <local/synthesize_corpus.py)
if stage 0 "Synthesise the corpus" "$corpus/.done" "--train-hours $train_hours --seed $seed, script $script"; then
  local/synthesize_corpus.py --out-dir "$corpus" --train-hours "$train_hours" --seed "$seed" --nj "$nj"
  stage_done
fi

if stage 1 "Manifests" "$manifests/.mini.done" "$corpus"; then
  "$_stages_dir/prepare_table.py" --table "$corpus/table.tsv" --audio-dir "$corpus" --prefix mini \
    --out-dir "$manifests" --nj "$nj"
  stage_done
fi

prepare_stages mini train "dev test"
