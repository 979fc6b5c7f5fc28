#!/usr/bin/env bash
# Runs the speechocean762 recipe, from the download to a table of word error rates, on two CPU cores.

set -euo pipefail
CDPATH= cd "$(dirname "$0")"
. ../../../local/run_stages.sh
chunk_ms="1280 640 320 160"
left_chunks="-1 4"
begin "$@"

run_stages speechocean762 train
