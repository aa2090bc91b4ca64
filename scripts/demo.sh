#!/usr/bin/env bash
# Sets everything up and evaluates a shipped policy in MuJoCo: sequential DDPM with 100 steps against DDIM with 10.
# Ten episodes each, on the same seeds. OUTPUT names another output directory.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" run
specpolicy evaluate task=lift policy=checkpoints/lift 'samplers=[ddpm,ddim]' episodes=10 \
    output="${OUTPUT:-outputs/demo}"
