#!/usr/bin/env bash
# Prepares the corpus @NAME@.
# Stage 1 writes manifests and splits, and reports problems of the corpus.
#
#   --text-case C               case to which the transcripts are converted, and hotwords and text of language models with
#                               them: keep, lower or upper (default: @TEXT_CASE@)
#   --punctuation P             keep, or remove from the same texts (default: @PUNCTUATION@)

set -euo pipefail
CDPATH= cd "$(dirname "$0")"
. @ROOT@/local/prepare_stages.sh
sample_rate=@sample_rate@
num_mel_bins=@num_mel_bins@
speed_perturb=@speed_perturb@
model_type=@model_type@
vocab_size=@vocab_size@
text_case=@TEXT_CASE@
punctuation=@PUNCTUATION@
begin "$@"

corpus=(@SOURCE@ --text-case "$text_case" --punctuation "$punctuation")
# Stage 1 runs again when the corpus changes. Its lists are part of the settings, by their contents. The stage records
# size and time of the audio files that they name, also of missing ones, and the files on disk are compared with them;
# audio behind commands of a wav.scp is not. Nothing else counts, because the audio may lie in a folder to which recipes
# write too. lhotse's recipes choose their files themselves, so all files of the corpus count, except for this recipe's.
contents=$({ @CONTENTS@; } 2>/dev/null | cksum || true)
mark=$manifests/.@NAME@.done
check_audio @NAME@ "$mark"
if stage 1 "Manifests" "$mark" "${corpus[*]}, contents $contents"; then
  "$_stages_dir/prepare_table.py" "${corpus[@]}" --fill-splits --prefix @NAME@ --out-dir "$manifests" --nj "$nj"
  stage_done
fi

prepare_stages @NAME@ "@TRAIN@" "@DEV@ @TEST@"
