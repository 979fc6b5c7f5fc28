# Sourced by prepare_stages.sh, run_stages.sh and compare_models.sh, hence by prepare.sh, run.sh and compare.sh of the
# recipes, and by other scripts of theirs. It defines
#
#   parse_options "$@"        sets the variable foo_bar from the option --foo-bar VALUE (or --foo_bar, or =VALUE); the
#                             script must set a default of foo_bar before. --help prints the script's header.
#   log MESSAGE               prints time, script and message
#   stage N TITLE MARK [SETTINGS [EARLIER_MARK]]
#                             succeeds if stage N has to run: --stage <= N <= --stop-stage, and it is not done yet
#   stage_done                ends that stage and writes MARK
#   write_whole FILE          writes standard input to FILE, which is left as it was if that fails
#   check_names NAME ...      exits unless the names can be parts of paths and arguments
#   check_choice NAME VALUE ...
#                             exits unless the value of the variable NAME is one of VALUE ...
#
# A stage is done when MARK holds the same SETTINGS and the run of the earlier stage whose result it used: the one before
# it, or that of EARLIER_MARK, "" for none. Each run has its own name, so an earlier stage that runs again makes the later
# ones run again, whatever the clock says. To run a stage again, remove its MARK. A recipe contains
#
#   if stage 2 "Compute features" data/fbank/.done "$speeds"; then
#     ../../../local/compute_fbank.py ...
#     stage_done
#   fi
#
# after "set -euo pipefail", so that a failing command ends the script before the mark is written.

. "$(dirname "${BASH_SOURCE[0]}")/../tools/print_header.sh"

stage=0
stop_stage=100
# Text that --help prints after the script's header.
options_help=

log() {
  echo "$(date '+%Y-%m-%d %H:%M:%S') ${0##*/}: $*"
}

parse_options() {
  local _name _value _variable _number
  while [ $# -gt 0 ]; do
    case $1 in
      --help | -h)
        # The script has changed to its own folder, from which a relative $0 may not exist.
        if [ -e "$0" ]; then _name=$0; else _name=${0##*/}; fi
        print_header "$_name"
        [ -z "$options_help" ] || printf '%s\n' "$options_help"
        exit 0
        ;;
      --*=*)
        _name=${1%%=*}
        _value=${1#*=}
        shift
        ;;
      --*)
        if [ $# -lt 2 ]; then
          echo "${0##*/}: option $1 needs a value; see ${0##*/} --help" >&2
          exit 2
        fi
        _name=$1
        _value=$2
        shift 2
        ;;
      *)
        echo "${0##*/}: unexpected argument '$1'; see ${0##*/} --help" >&2
        exit 2
        ;;
    esac
    _variable=${_name#--}
    _variable=${_variable//-/_}
    if ! [[ $_variable =~ ^[a-z][a-z0-9_]*$ ]] || [ -z "${!_variable+set}" ]; then
      echo "${0##*/}: unknown option $_name; see ${0##*/} --help" >&2
      exit 2
    fi
    printf -v "$_variable" %s "$_value"
  done
  for _number in stage stop_stage; do
    if ! [[ ${!_number} =~ ^-?[0-9]+$ ]]; then
      echo "${0##*/}: --${_number//_/-} takes a number, not '${!_number}'" >&2
      exit 2
    fi
  done
}

check_names() {
  local _name
  for _name; do
    case $_name in
      "" | [-._]* | */*)
        echo "${0##*/}: '$_name' cannot be the name of a split or a corpus: begin with a letter or a digit" >&2
        exit 2
        ;;
    esac
  done
}

check_choice() {
  local _name=$1 _value
  shift
  for _value; do
    [ "${!_name}" != "$_value" ] || return 0
  done
  echo "${0##*/}: --${_name//_/-} is one of $*, not '${!_name}'" >&2
  exit 2
}

_mark=
_settings=
_stage_title=
_previous_mark=
_previous_run=

# The value of the line "# NAME VALUE" in the mark $2; empty without one.
_in_mark() {
  [ ! -e "$2" ] || sed -n "s/^# $1 //p" "$2"
}

# The content of a mark: settings, the name of the stage's run, the name of the run of the stage before.
_mark_content() {
  printf '%s\n# run %s\n# after %s\n' "$_settings" "$1" "$2"
}

write_whole() {
  mkdir -p "$(dirname "$1")"
  cat >"$1.part"
  mv "$1.part" "$1"
}

_is_done() {
  local run after=$_previous_run
  [ -s "$_mark" ] || return 1
  run=$(_in_mark run "$_mark")
  if [ -z "$run" ]; then # the mark of an earlier version: settings alone
    [ -z "$_previous_run" ] && [ "$(cat "$_mark")" = "$_settings" ]
    return
  fi
  # A stage before that has left no mark gives nothing to compare with.
  [ -e "$1" ] || after=$(_in_mark after "$_mark")
  [ "$(cat "$_mark")" = "$(_mark_content "$run" "$after")" ]
}

stage() {
  _settings=${4:-}
  _stage_title="Stage $1: $2"
  local previous=${5-$_previous_mark}
  _previous_run=$(_in_mark run "$previous")
  _mark=$3
  _previous_mark=$3
  if [ "$1" -lt "$stage" ] || [ "$1" -gt "$stop_stage" ]; then
    return 1
  fi
  if _is_done "$previous"; then
    log "$_stage_title: already done (to run it again, remove $_mark)"
    return 1
  fi
  if [ -s "$_mark" ]; then
    local settings
    settings=$(sed '/^# /d' "$_mark")
    if [ "$settings" != "$_settings" ]; then
      log "$_stage_title again, with the options '$_settings' instead of '$settings'"
    else
      log "$_stage_title again, because an earlier stage has run"
    fi
    rm "$_mark"
  else
    log "$_stage_title"
  fi
}

stage_done() {
  _mark_content "$(date '+%Y-%m-%dT%H:%M:%S')-$$-$RANDOM" "$_previous_run" | write_whole "$_mark"
  log "$_stage_title: done"
}
