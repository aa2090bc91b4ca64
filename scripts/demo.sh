#!/usr/bin/env bash
# Sets everything up and evaluates a shipped policy in MuJoCo with five samplers: DDPM with 100 steps one after the other,
# DDIM with 10, which is another law, and three that draw exactly what DDPM draws, in fewer calls. Ten episodes each, on
# the same seeds; a few minutes on two cores. Ends in a table of success, milliseconds and network calls.
# OUTPUT names another output directory.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" run
specpolicy evaluate task=lift policy=checkpoints/lift episodes="${EPISODES:-10}" \
    'samplers=[ddpm,ddim-10,{name: asd, window: 16},{name: block, window: 16},recycled]' \
    output="${OUTPUT:-outputs/demo}" "$@"
