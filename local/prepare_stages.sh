# Sourced by the recipes' prepare.sh: options and stages of all corpora. A recipe contains
#
#   #!/usr/bin/env bash
#   # Name of the corpus; stages 0 and 1, which differ between recipes; options of this recipe.
#   set -euo pipefail
#   CDPATH= cd "$(dirname "$0")"
#   . ../../../local/prepare_stages.sh
#   vocab_size=80                      # defaults that differ from those below, and more options
#   begin "$@"                         # parses the command line
#   if stage 0 ...; then ...; fi       # downloads the audio
#   check_audio PREFIX MARK_OF_STAGE_1 # stage 1 also runs again when a file of the corpus has changed
#   if stage 1 ...; then ...; fi       # writes $manifests/PREFIX_{recordings,supervisions}_SPLIT.jsonl.gz
#   prepare_stages PREFIX "TRAIN SPLITS" "DEV AND TEST SPLITS" ["SPLITS THAT ARE NOT PREPARED"]

_stages_dir=$(CDPATH= cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$_stages_dir/parse_options.sh"

# nproc counts what taskset or a cluster's scheduler leaves to this script, but also obeys these variables, which are
# about threads.
nj=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc)
dl_dir=download
data_dir=data
sample_rate=16000
num_mel_bins=80
speed_perturb=
storage=
feature_backend=lhotse
disjoint_speakers=false
vocab_size=500
model_type=unigram
lang_dir=
musan=auto
shar=false
dask_scheduler=
# Some recipes have these options. Variables of the environment are none.
unset lang text_case punctuation

options_help='
Stages of every recipe: 2 features, 3 validation, 4 tokens, 5 noise, 6 Shar. Options of every recipe:

  --stage N, --stop-stage M   run only stages N to M; a finished stage is skipped, unless its options have changed or an
                              earlier stage has run since; it names the file to remove to run it again
  --nj N                      processes (default: all processors that the script may use)
  --dl-dir DIR                folder of the corpus (default: download)
  --data-dir DIR              output folder (default: data)
  --sample-rate HZ            sample rate of the features; other audio is resampled
  --num-mel-bins N            features per frame (default: 80); train with the same --data.num-mel-bins
  --speed-perturb 0.9,1.1     add copies of the training splits at these speeds; --speed-perturb= for none
  --storage S                 numpy_files: features on disk, 0.12 GB per hour; lilcom_chunky: compressed to a third of
                              that, needs "pip install lilcom"; none: computed in training, with --data.on-the-fly true
                              (default: lilcom_chunky for splits of more than 1000 hours, otherwise numpy_files)
  --feature-backend B         lhotse, kaldifeat or kaldi-native-fbank
  --disjoint-speakers true    fail if two splits share a speaker, instead of a warning
  --model-type T              kind of tokens: unigram, bpe or char
  --vocab-size N              number of tokens; for char the maximum
  --lang-dir DIR              folder of the tokens (default: DATA_DIR/lang_bpe_N or DATA_DIR/lang_char, with _L appended
                              if the recipe has an option --lang L)
  --musan M                   noise to mix in during training. true: MUSAN (OpenSLR 17), 11 GB to download unless
                              DL_DIR/musan exists; auto: MUSAN if DL_DIR/musan exists; false: none (default: auto)
  --shar true                 also pack the splits into large files in DATA_DIR/shar, for clusters and object stores
  --dask-scheduler S          address or file of a Dask scheduler, whose workers compute the features'

begin() {
  parse_options "$@"
  check_choice musan auto true false
  check_choice shar true false
  check_choice disjoint_speakers true false
  . "$_stages_dir/../tools/setup.sh"
  manifests=$data_dir/manifests
  fbank=$data_dir/fbank
  if [ -z "$lang_dir" ]; then
    lang_dir=$data_dir/lang_bpe_$vocab_size
    [ "$model_type" != char ] || lang_dir=$data_dir/lang_char
    lang_dir+=${lang:+_$lang}
  fi
}

# Removes the mark $2 of stage 1, so that it runs, if an audio file of the corpus $1, or of its parts, "PART ...", or
# transcripts that the stage has noted, are not as it found them.
check_audio() {
  local changed name folders=()
  if [ -e "$2" ] && [ "$stage" -le 1 ] && [ "$stop_stage" -ge 1 ]; then
    for name in $1; do
      folders+=("$manifests/audio/$name")
    done
    changed=$("$_stages_dir/changed_audio.py" "${folders[@]}")
    [ -n "$changed" ] || return 0
    log "$changed has changed since stage 1"
    rm "$2"
  fi
}

# Exits unless the splits in the list of manifests that local/prepare_table.py has written are the splits NAME ...
check_splits() {
  local prefix=$1 listing=$manifests/.$1-manifests.txt written named added removed
  shift
  [ -e "$listing" ] || return 0
  written=$(sed -n "s/^${prefix}_supervisions_\(.*\)\.jsonl\.gz$/\1/p" "$listing" | sort)
  named=$(printf '%s\n' "$@" | sort)
  added=$(comm -23 <(echo "$written") <(echo "$named") | xargs)
  removed=$(comm -13 <(echo "$written") <(echo "$named") | xargs)
  [ -n "$added$removed" ] || return 0
  [ -z "$added" ] || log "The corpus has splits that this recipe does not name: $added"
  [ -z "$removed" ] || log "The corpus no longer has splits that this recipe names: $removed"
  log "Correct prepare.sh: prepare_stages $prefix \"TRAIN ...\" \"DEV AND TEST ...\" [\"NOT PREPARED ...\"]"
  log "Then correct the training splits in run.sh and in conf/*.yaml (train), the dev splits in conf/*.yaml (dev)," \
    "and the test splits in decode.py"
  exit 1
}

prepare_stages() {
  local prefix=$1 train=$2 eval=$3 unused=${4:-}
  check_names "$prefix" $train $eval $unused
  check_splits "$prefix" $train $eval $unused
  local options=(--manifest-dir "$manifests" --out-dir "$fbank" --nj "$nj")
  [ -z "$dask_scheduler" ] || options+=(--executor dask --dask-scheduler "$dask_scheduler")
  local splits=(--splits $train $eval) all_splits="--train $train --eval $eval"
  local features=(${storage:+--storage "$storage"} --backend "$feature_backend")
  features+=(--sample-rate "$sample_rate" --num-mel-bins "$num_mel_bins")

  if stage 2 "Features" "$fbank/.$prefix.done" "${features[*]} --speed-perturb $speed_perturb $all_splits"; then
    if [ -n "$eval" ]; then
      "$_stages_dir/compute_fbank.py" --prefix "$prefix" "${options[@]}" "${features[@]}" --splits $eval
    fi
    if [ -n "$train" ]; then
      "$_stages_dir/compute_fbank.py" --prefix "$prefix" "${options[@]}" "${features[@]}" --splits $train \
        --speed-perturb "$speed_perturb"
    fi
    stage_done
  fi

  local validated=$fbank/.$prefix-validated.done
  if stage 3 "Validate" "$validated" "--disjoint-speakers $disjoint_speakers $all_splits"; then
    local validate=(--prefix "$prefix" --manifest-dir "$fbank" --audio-dir "$manifests/audio")
    validate+=(--nj "$nj" "${splits[@]}")
    [ "$disjoint_speakers" != true ] || validate+=(--disjoint-speakers)
    "$_stages_dir/validate_cuts.py" "${validate[@]}"
    stage_done
  fi

  local tokens=(--vocab-size "$vocab_size" --model-type "$model_type")
  # A recipe whose stage 1 converts the transcripts to a case, or removes punctuation, has these variables.
  [ "${text_case:-keep}" = keep ] || tokens+=(--text-case "$text_case")
  [ "${punctuation:-keep}" = keep ] || tokens+=(--punctuation "$punctuation")
  if [ -n "$train" ] && stage 4 "Tokens" "$lang_dir/.done" "${tokens[*]} --splits $train"; then
    local split supervisions=()
    for split in $train; do
      supervisions+=("$manifests/${prefix}_supervisions_$split.jsonl.gz")
    done
    "$_stages_dir/train_bpe.py" --lang-dir "$lang_dir" "${tokens[@]}" --supervisions "${supervisions[@]}"
    "$_stages_dir/index_cuts.py" --lang-dir "$lang_dir" --prefix "$prefix" --manifest-dir "$fbank" --nj "$nj" \
      --splits $train
    stage_done
  fi

  if [ "$musan" = auto ]; then
    musan=true
    if [ ! -d "$dl_dir/musan" ]; then
      musan=false
      log "No noise is prepared, because $dl_dir/musan does not exist; --musan true downloads it"
    fi
  fi
  # Without the default folder, as in the marks of earlier versions.
  local noise_settings=${features[*]}
  [ "$dl_dir" = download ] || noise_settings+=" --dl-dir $dl_dir"
  if [ "$musan" = true ] && stage 5 "Noise" "$fbank/.musan.done" "$noise_settings" ""; then
    "$_stages_dir/download_musan.py" --dl-dir "$dl_dir"
    "$_stages_dir/prepare_musan.py" --dl-dir "$dl_dir" --out-dir "$manifests" --nj "$nj"
    "$_stages_dir/compute_fbank.py" --prefix musan "${options[@]}" "${features[@]}" --splits music noise speech \
      --noise-windows 10
    stage_done
  fi

  local shar_dir=$data_dir/shar${lang:+_$lang} fields=(--features numpy)
  [ "$storage" != none ] || fields=(--features none --recording flac)
  if [ "$shar" = true ] && stage 6 "Shar" "$shar_dir/.done" "--prefix $prefix ${fields[*]} $all_splits" "$validated"; then
    "$_stages_dir/export_shar.py" --prefix "$prefix" "${splits[@]}" --manifest-dir "$fbank" --out-dir "$shar_dir" \
      "${fields[@]}" --nj "$nj"
    stage_done
  fi
}
