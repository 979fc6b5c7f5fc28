#!/usr/bin/env bash
# Prepares one language of VoxPopuli: transcribed speeches of the European Parliament.
# Stage 0 downloads missing files, stage 1 writes manifests.
#
#   --lang L                    en de fr es pl it ro hu cs nl fi hr sk sl et or lt (default: en)
#   --text T                    normed: normalised transcripts, which papers score; raw: with case and punctuation
#                               where they are known (default: normed)
#   --segmented S               true: segments made by VoxPopuli's get_asr_data; false: whole sessions; auto: segments
#                               if they exist (default: auto)
#   --max-seconds S             leave longer segments out of train (default: 100)
#   --min-words N               leave segments with fewer words out of train (default: 3)
#
# Whole sessions are in DL_DIR/voxpopuli, as asr_L.tsv.gz and raw_audios/original/YEAR/*.ogg, or raw_audios/L/YEAR/*.ogg
# if that exists. Segments are in DL_DIR/voxpopuli/transcribed_data/L, as YEAR/*.ogg and asr_{train,dev,test}.tsv.
# All names contain the language, so several languages can share the folders.

set -euo pipefail
CDPATH= cd "$(dirname "$0")"
. ../../../local/prepare_stages.sh
lang=en
text=normed
segmented=auto
max_seconds=100
min_words=3
vocab_size=1000
begin "$@"

languages="en de fr es pl it ro hu cs nl fi hr sk sl et lt"
check_choice lang $languages
check_choice segmented auto true false
if [ "$segmented" = auto ]; then
  segmented=false
  [ ! -e "$dl_dir/voxpopuli/transcribed_data/$lang/asr_train.tsv" ] || segmented=true
fi
prefix=voxpopuli-$lang
options=(--dl-dir "$dl_dir" --lang "$lang")

if [ "$segmented" = true ]; then
  log "Using the segments in $dl_dir/voxpopuli/transcribed_data/$lang"
elif stage 0 "Download" "$data_dir/.$prefix-download.done" "$dl_dir"; then
  local/download.py "${options[@]}"
  stage_done
fi

options+=(--text "$text" --max-seconds "$max_seconds" --min-words "$min_words")
[ "$segmented" != true ] || options+=(--segmented)
check_audio "$prefix" "$manifests/.$prefix.done"
if stage 1 "Manifests" "$manifests/.$prefix.done" "${options[*]}"; then
  local/prepare_manifests.py "${options[@]}" --out-dir "$manifests" --nj "$nj"
  stage_done
fi

prepare_stages "$prefix" train "dev test"
