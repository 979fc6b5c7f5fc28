#!/usr/bin/env bash
# Prepares speechocean762 (OpenSLR 101): 5000 English sentences read by 250 Chinese learners, half of them children.
# Stage 0 downloads the corpus unless it exists, stage 1 writes manifests.
#
# The corpus is in DL_DIR/speechocean762/{train,test,WAVE}. dev is taken from train by speakers; no speaker is in two
# splits.

set -euo pipefail
CDPATH= cd "$(dirname "$0")"
. ../../../local/prepare_stages.sh
speed_perturb=0.8,0.9,1.1,1.2
model_type=char
disjoint_speakers=true
begin "$@"

corpus=$dl_dir/speechocean762
if stage 0 "Download" "$data_dir/.download.done" "$dl_dir"; then
  local/download.py --dl-dir "$dl_dir"
  stage_done
fi

# Stage 1 runs again when the lists of the corpus change.
contents=$(cat "$corpus"/*/{wav.scp,segments,text,utt2spk,utt2lang} 2>/dev/null | cksum || true)
check_audio speechocean762 "$manifests/.speechocean762.done"
if stage 1 "Manifests" "$manifests/.speechocean762.done" "$corpus, contents $contents"; then
  "$_stages_dir/prepare_table.py" --kaldi-dir "$corpus" --audio-dir "$corpus" --fill-splits --prefix speechocean762 \
    --out-dir "$manifests" --nj "$nj"
  stage_done
fi

prepare_stages speechocean762 train "dev test"
