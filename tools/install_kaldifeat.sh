#!/usr/bin/env bash
# Installs kaldifeat for this environment's torch and checks its features. If its authors have built no wheel that fits,
# kaldifeat is compiled from the sources on PyPI, which needs a C++ compiler and some minutes.
#
#   tools/install_kaldifeat.sh [--dry-run] [--page FILE_OR_URL]
#
#   --dry-run            only print which wheel would be installed
#   --page FILE_OR_URL   list of wheels instead of kaldifeat's own, such as a mirror's
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

compile() {
  local compiler=${CXX:-c++} include
  include=$(python -c 'import sysconfig; print(sysconfig.get_path("include"))')
  if ! command -v "$compiler" >/dev/null || [ ! -e "$include/Python.h" ]; then
    echo "Compiling kaldifeat needs a C++ compiler ($compiler) and $include/Python.h: install them (on Debian and" \
      "Ubuntu: apt-get install g++ python3-dev), or use the feature backend lhotse or kaldi-native-fbank" >&2
    return 1
  fi
  # The build tools stay out of the environment.
  python -m pip install --quiet --target "$work/tools" ninja wheel 'setuptools<82'
  export PYTHONPATH=$work/tools${PYTHONPATH:+:$PYTHONPATH} PATH=$work/tools/bin:$PATH
  python -m pip download --quiet --no-deps --no-build-isolation --no-binary :all: --dest "$work" kaldifeat==1.24
  tar -xzf "$work/kaldifeat-1.24.tar.gz" -C "$work"
  cp "$tools/kaldifeat_setup.py" "$work/kaldifeat-1.24/setup.py"
  python -m pip install --no-index --no-deps --no-build-isolation --no-cache-dir --force-reinstall \
    "$work/kaldifeat-1.24"
}

status=0
python "$tools/wheel_pages.py" kaldifeat https://csukuangfj.github.io/kaldifeat "$@" || status=$?
if [ "$status" -gt 1 ]; then exit "$status"; fi
if [ "$status" -eq 1 ]; then
  echo "kaldifeat has to be compiled here, from the sources on PyPI, which takes some minutes"
fi
case " $* " in *" --dry-run "*) exit ;; esac
if [ "$status" -eq 1 ]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  (compile)
fi
python -m summarymix.data.check_features kaldifeat
