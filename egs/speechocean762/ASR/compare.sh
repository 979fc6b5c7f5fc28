#!/usr/bin/env bash
# Compares models of one size after 2000 updates of 48 s: the Conformer and the zip-style encoder with SummaryMixing and
# with self-attention, and the Conformer whose convolutions alone connect frames. SpecAugment ramps up until half time.

set -euo pipefail
CDPATH= cd "$(dirname "$0")"
. ../../../local/compare_models.sh
models="conformer conformer+attention conformer+local zipformer zipformer+attention"
page=COMPARISON.md
before=conf/conformer.yaml
after=conf/short.yaml
train_options+=" --max-steps 2000 --data.spec-augment.warmup-steps 1000 --valid-every-steps 500 --data.num-workers 0"
begin_comparison "$@"

compare_models --chunk-ms "640 320" --left-chunks 4
