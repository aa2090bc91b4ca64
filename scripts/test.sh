#!/usr/bin/env bash
# Sets everything up, checks style and types, and runs the tests. Arguments go to pytest: scripts/test.sh -k chain
# Without any, tests of engines run in processes of their own: compiled code stays in a process, and now and then one that
# had run OpenVINO and torch's compiler crashed (signal 11) in a later test, beside OpenGL and programs it had started.
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
    "${run[@]}" tests/engines
    "${run[@]}" --ignore=tests/engines
fi
