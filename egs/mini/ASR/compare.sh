#!/usr/bin/env bash
# Compares models of one size: the Conformer, its variants, and the zip-style encoder, trained without pauses.

set -euo pipefail
CDPATH= cd "$(dirname "$0")"
. ../../../local/compare_models.sh
models="conformer conformer+attention conformer+local zipformer zipformer+attention"
begin_comparison "$@"

compare_models
