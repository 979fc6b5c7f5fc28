#!/usr/bin/env bash
# Prepares one language of VoxPopuli: transcribed speeches of the European Parliament.
# Stage 0 downloads what is not there, stage 1 makes manifests.
#
#   --lang L                    en de fr es pl it ro hu cs nl fi hr sk sl et or lt (default: en)
#   --text T                    normed: the normalised transcripts, which papers score; raw: with case and punctuation
#                               where they are known (default: normed)
#   --segmented S               true: DL_DIR/voxpopuli/transcribed_data/L/YEAR/*.ogg and asr_{train,dev,test}.tsv, as
#                               VoxPopuli's get_asr_data makes them; false: whole sessions; auto: segmented if there
#                               (default: auto)
#   --max-seconds S             longer segments are taken out of train (default: 100)
#   --min-words N               segments with fewer words are taken out of train (default: 3)
#
# Of whole sessions DL_DIR/voxpopuli has, or gets, asr_L.tsv.gz and raw_audios/original/YEAR/*.ogg; raw_audios/L/YEAR
# is used instead where it is there. The names of everything end in the language, so several can lie side by side.

set -euo pipefail
cd "$(dirname "$0")"
. ../../../local/prepare_stages.sh
lang=en
text=normed
segmented=auto
max_seconds=100
min_words=3
vocab_size=1000
begin "$@"

languages="en de fr es pl it ro hu cs nl fi hr sk sl et lt"
if [[ " $languages " != *" $lang "* ]]; then
  log "--lang is one of $languages, not '$lang'"
  exit 2
fi
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
if stage 1 "Manifests" "$manifests/.$prefix.done" "${options[*]}"; then
  local/prepare_manifests.py "${options[@]}" --out-dir "$manifests" --nj "$nj"
  stage_done
fi

prepare_stages "$prefix" train "dev test"
