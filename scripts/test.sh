#!/usr/bin/env bash
# Sets everything up, checks style and types, and runs the tests. Arguments go to pytest: scripts/test.sh -k chain
# Without any, tests of engines run first and in processes of their own. Their compiled code stays in a process: workers
# that had run them crashed now and then (signal 11 where it was caught), and the cause is not known.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" test
ruff check .
ruff format --check .
mypy
export OMP_NUM_THREADS=1
run=(pytest -n "${TEST_PROCESSES:-2}" --durations=10 -m "not slow and not gpu")
if [ "$#" -gt 0 ]; then
    "${run[@]}" "$@"
else
    failed=0
    "${run[@]}" tests/engines || failed=1
    "${run[@]}" --ignore=tests/engines || failed=1
    exit "$failed"
fi
