#!/usr/bin/env bash
# Sets everything up and shows two things in MuJoCo. Takes a few minutes on two cores, plus the downloads.
# 1. The cost of a chunk on this machine, for a shipped policy: DDPM makes 100 calls one after the other; asd, block and
#    recycled draw from exactly DDPM's distribution in fewer calls; recycled-16 and ddim-10 have other distributions.
# 2. The effect of this time on success: the policy picks a cube from a moving belt, and the world moves on while it
#    computes. It charges the times of part 1, or recorded ones if this machine's would show nothing, and says which.
# Results: a table, a report and an animated picture of the robot that waits beside the one that does not.
# EPISODES (16): episodes of each sampler, all on the same seeds. OUTPUT (outputs/demo): directory for all results.
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
