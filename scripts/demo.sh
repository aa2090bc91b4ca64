#!/usr/bin/env bash
# Sets everything up and shows two things in MuJoCo, in less than ten minutes on two cores, downloads apart:
# 1. what a chunk costs: a shipped policy lifts a cube with five samplers. DDPM with 100 steps one after the other, DDIM
#    with 10, which is another law, and three that draw exactly what DDPM draws, in fewer calls;
# 2. what a millisecond is worth: the cube rides a belt, in a world that moves on by the measured time of every call.
# Both end in a table and a report. EPISODES of each sampler (10, and 6 on the belt), all on the same seeds; OUTPUT names
# another output directory.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" run
output="${OUTPUT:-outputs/demo}"
specpolicy evaluate task=lift policy=checkpoints/lift episodes="${EPISODES:-10}" videos=1 output="$output/lift" \
    'samplers=[ddpm,ddim-10,{name: asd, window: 16},{name: block, window: 16},recycled]'
specpolicy evaluate task=lift_conveyor policy=checkpoints/lift_conveyor episodes="${EPISODES:-6}" videos=1 \
    output="$output/lift_conveyor" track=charged 'track.factors=[1]' \
    'samplers=[ddpm,recycled,ddim-10]' 'references=[ddpm,ddim-10]'
