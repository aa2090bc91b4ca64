#!/usr/bin/env bash
# Installs specpolicy's core beside LeRobot and compares chunks of a wrapped policy with LeRobot's own sampling.
# Makes an environment with the newest LeRobot for this Python (some gigabytes if its torch comes with CUDA), installs
# specpolicy from this checkout into it as a user would, and records what that changed. Then benchmarks/lerobot_wrap.py
# writes the page, and scripts/check_lerobot_robot.py checks robots and rollouts. The environment is deleted at the end.
# Usage: scripts/lerobot_environment.sh [PAGE]   default docs/results/lerobot_environment.md
# PYTHON names the interpreter (default: python3.12 if there is one, else python3). VENV names an environment
# that already has LeRobot: specpolicy is installed into it, and it is kept. pip's usual variables apply.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
page="$(realpath -m "${1:-$root/docs/results/lerobot_environment.md}")"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python="${PYTHON:-python3.12}"
"$python" -c '' 2>/dev/null || python=python3
venv="${VENV:-$work/venv}"
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
echo "lerobot_environment: installing LeRobot ($("$venv/bin/python" --version))" >&2
pip install --quiet 'lerobot[diffusion,multi-task-dit]' # pip only warns of the extra where an older LeRobot does not have it
pip uninstall --quiet --yes specpolicy 2>/dev/null || true
pip freeze >"$work/before.txt"
pip check >"$work/check_before.txt" || true
# A copy, because pip builds in place and would leave a build/ in this checkout.
mkdir "$work/source"
(cd "$root" && cp -r specpolicy envs configs pyproject.toml README.md LICENSE "$work/source")
pip install --quiet "$work/source"
pip freeze >"$work/after.txt"
pip check >"$work/check_after.txt" || true
cd "$work" # so that what is imported is what was installed
"$venv/bin/python" "$root/benchmarks/lerobot_wrap.py" "$work" "$page"

# Our robots and our policy type, in LeRobot's own rollout, which older versions do not have.
if "$venv/bin/python" -c 'import importlib.util as i, sys; sys.exit(not i.find_spec("lerobot.rollout"))'; then
    pip install --quiet 'lerobot[dataset,feetech]' gym-pusht "$work/source[cli]"
    "$venv/bin/python" "$root/scripts/check_lerobot_robot.py"
fi
