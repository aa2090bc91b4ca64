#!/usr/bin/env bash
# Sets everything up, checks style and types, and runs the tests. Arguments go to pytest: scripts/test.sh -k chain
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" test
ruff check .
ruff format --check .
mypy
export OMP_NUM_THREADS=1
pytest -n "${TEST_PROCESSES:-2}" --durations=10 -m "not slow and not gpu" "$@"
