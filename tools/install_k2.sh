#!/usr/bin/env bash
# Installs the k2 wheel for this environment's torch, if its authors have built one, and checks its losses.
#
#   tools/install_k2.sh [--dry-run] [--page FILE_OR_URL]
#
#   --dry-run            only print what would be installed
#   --page FILE_OR_URL   list of wheels instead of k2's own, such as a mirror's
#
# Do not run "pip install k2": the k2 on PyPI is for Python 3.9 and torch 1.13.
set -euo pipefail
tools=$(CDPATH= cd "$(dirname "$0")" && pwd)
. "$tools/print_header.sh"
case " $* " in
  *" --help "* | *" -h "*)
    print_header "$0"
    exit
    ;;
esac
. "$tools/setup.sh"

status=0
python "$tools/wheel_pages.py" k2 https://k2-fsa.github.io/k2 "$@" || status=$?
if [ "$status" -eq 1 ]; then
  echo "k2 is not installed. It is optional: the native loss gives the same results. To use k2, install a torch from" \
    "that list, or build k2: https://k2-fsa.github.io/k2/installation/from_source.html" >&2
fi
if [ "$status" -ne 0 ]; then exit "$status"; fi
case " $* " in *" --dry-run "*) exit ;; esac
python "$tools/check_k2.py"
