#!/usr/bin/env bash
# Success on the two moving tasks when the world moves on by the measured time of every call
# (docs/results/charged_clock.md). Hours; on a machine that does nothing else, or the times mean nothing.
# The same command goes on where it stopped.
# Usage: benchmarks/charged_clock.sh                 lift_conveyor and push_t_moving
#        benchmarks/charged_clock.sh lift_conveyor   this one
# EPISODES (100) of each arm; SAMPLERS ([ddpm,ddim-10,asd,block,recycled,recycled-16]), with ddpm and ddim-10 among them;
# ENGINE (eager) runs the network; WORK (outputs/benchmarks/charged_clock) keeps the results;
# RESULTS (docs/results/charged_clock.md) is the page.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/setup.sh" run
work="${WORK:-outputs/benchmarks/charged_clock}"
tasks=("$@")
[ "$#" -gt 0 ] || tasks=(lift_conveyor push_t_moving)
for task in "${tasks[@]}"; do
    specpolicy evaluate task="$task" policy="checkpoints/$task" track=charged 'track.factors=[0,1]' \
        samplers="${SAMPLERS:-[ddpm,ddim-10,asd,block,recycled,recycled-16]}" 'references=[ddpm,ddim-10]' \
        engine="${ENGINE:-eager}" episodes="${EPISODES:-100}" videos=1 output="$work/$task"
done
python benchmarks/harness_pages.py charged_clock "$work" "${RESULTS:-docs/results/charged_clock.md}"
