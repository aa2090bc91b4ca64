#!/usr/bin/env bash
# Sets everything up and shows two things in MuJoCo, in a few minutes on two cores, downloads apart:
# 1. what a chunk of a shipped policy costs on this machine: DDPM with its 100 calls one after the other; asd, block and
#    recycled, which draw exactly what DDPM draws in fewer calls; recycled-16 and ddim-10, which draw something else;
# 2. what a millisecond is worth: the policy picks a cube from a moving belt, and the world moves on while it computes.
# Charged are the times of the first part, or recorded ones where this machine's would tell nothing; it says which.
# Ends in a table, a report and an animated picture: the robot that waits beside the one that does not.
# EPISODES (16) of each sampler, all on the same seeds; OUTPUT (outputs/demo) is where everything goes.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" run
output="${OUTPUT:-outputs/demo}"
echo "1. What a chunk costs here"
specpolicy benchmark policy=checkpoints/lift_conveyor count=20 output="$output/cost" \
    'samplers=[ddpm,asd,block,recycled,recycled-16,ddim-10]'
echo "2. What that is worth on a belt that moves at 20 control steps a second"
trace="$(python scripts/demo_times.py "$output/cost")"
specpolicy evaluate task=lift_conveyor policy=checkpoints/lift_conveyor track=charged 'track.factors=[1]' \
    track.trace="$trace" 'samplers=[ddpm,recycled,recycled-16,ddim-10]' 'references=[ddpm]' \
    episodes="${EPISODES:-16}" videos=8 output="$output/belt"
python scripts/demo_picture.py "$output/belt" "$output/demo.gif" ddpm recycled-16
