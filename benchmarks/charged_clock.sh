#!/usr/bin/env bash
# Success on the two moving tasks when the world moves on by the time of every call (docs/results/charged_clock.md).
# First, on a machine that does nothing else, the times of TRACE_COUNT (200) chunks of each sampler are recorded: some
# minutes. Then episodes are played against this trace, which other work does not disturb. The same command goes on
# where it stopped.
# Usage: benchmarks/charged_clock.sh                 lift_conveyor and push_t_moving
#        benchmarks/charged_clock.sh lift_conveyor   this one
#        LIVE=1 benchmarks/charged_clock.sh          no trace: each call is charged what it takes as it is played; the
#                                                    machine must do nothing else for hours, or the times mean nothing
# EPISODES (100) of each condition; SAMPLERS ([ddpm,ddim-10,asd,block,recycled,recycled-16]), with ddpm and ddim-10 among them;
# ENGINE (eager) runs the network whose times are charged, each engine's results beside those of others; WORK
# (outputs/benchmarks/charged_clock, with LIVE outputs/benchmarks/charged_clock_live) keeps the results; RESULTS
# (docs/results/charged_clock.md, with LIVE docs/results/charged_clock_live.md) is the page.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/setup.sh" test
name="charged_clock${LIVE:+_live}"
work="${WORK:-outputs/benchmarks/$name}"
samplers="${SAMPLERS:-[ddpm,ddim-10,asd,block,recycled,recycled-16]}"
engine="${ENGINE:-eager}"
tasks=("$@")
[ "$#" -gt 0 ] || tasks=(lift_conveyor push_t_moving)
for task in "${tasks[@]}"; do
    timing=(engine="$engine")
    results="$task"
    [ "$engine" = eager ] || results="$task-$engine"
    if [ -z "${LIVE:-}" ]; then
        trace="$work/traces/$task-$engine"
        [ -e "$trace/summary.json" ] || specpolicy benchmark policy="checkpoints/$task" engine="$engine" window=tuned \
            count="${TRACE_COUNT:-200}" samplers="$samplers" output="$trace"
        timing=(track.trace="$trace/chunks.csv" engine=openvino batch=16)
    fi
    specpolicy evaluate task="$task" policy="checkpoints/$task" track=charged 'track.factors=[0,1]' \
        samplers="$samplers" 'references=[ddpm,ddim-10]' "${timing[@]}" \
        episodes="${EPISODES:-100}" videos=1 output="$work/$results"
done
python benchmarks/harness_pages.py charged_clock "$work" "${RESULTS:-docs/results/$name.md}"
