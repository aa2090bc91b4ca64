#!/usr/bin/env bash
# Sets everything up and shows in MuJoCo what a millisecond is worth: a cube on a moving belt, in a world that moves on by
# the measured time of every call. Sequential DDPM with 100 steps, recycled (the same law in fewer calls), DDIM with 10.
# EPISODES (8) of each, on the same seeds; OUTPUT names another output directory. About ten minutes on two cores.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" run
specpolicy evaluate task=lift_conveyor policy=checkpoints/lift_conveyor track=charged 'track.factors=[1]' \
    'samplers=[ddpm,recycled,ddim-10]' 'references=[ddpm,ddim-10]' episodes="${EPISODES:-8}" videos=1 \
    output="${OUTPUT:-outputs/demo}"
