#!/usr/bin/env bash
# Runs lint, the type checker and the tests. Its arguments go to pytest:
#   tools/test.sh tests/blocks/test_mixing.py -k padding
set -euo pipefail
CDPATH= cd "$(dirname "$0")/.."
. tools/setup.sh

ruff check .
ruff format --check .
mypy
# One torch thread per pytest worker: more would compete for the cores. One worker more than cores, because tests also
# wait for processes and clocks. A worker gets the tests of whole modules, whose fixtures are then made once; one that has
# none left takes over tests of another.
OMP_NUM_THREADS=1 python -m pytest -n "${PYTEST_WORKERS:-$(($(nproc) + 1))}" --dist worksteal "$@"
