#!/usr/bin/env bash
# Success on the two moving tasks when the world moves on by the time of every call (docs/results/charged_clock.md).
# First the times of TRACE_COUNT (200) chunks of each sampler are recorded, which takes some minutes on a machine that
# does nothing else. Then episodes are played against this trace; other work does not disturb this part. To continue an
# interrupted run, run the same command again.
# Usage: benchmarks/charged_clock.sh                 lift_conveyor and push_t_moving
#        benchmarks/charged_clock.sh lift_conveyor   this one
#        LIVE=1 benchmarks/charged_clock.sh          no trace: each call is charged its own time; the machine must do
#                                                    nothing else for hours, or the times are meaningless
# EPISODES (100): episodes of each condition. SAMPLERS ([ddpm,ddim-10,asd,block,recycled,recycled-16]), and REFERENCES
# ([ddpm,ddim-10]): those of them that the others are compared with. ENGINE (eager): engine whose times are charged;
# results of several engines are kept side by side. NAME: added to the names of results and traces, to keep those of
# another machine too. POLICY (checkpoints/TASK): another policy of the task, which wants a NAME.
# FACTORS ([0,1]): on the times; 0 is a world that waits, which is the same for every engine, so [1] will do for a second.
# WORK (outputs/benchmarks/charged_clock, with LIVE outputs/benchmarks/charged_clock_live): directory of the results.
# RESULTS (docs/results/charged_clock.md, with LIVE docs/results/charged_clock_live.md): the page.
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
    policy="${POLICY:-checkpoints/$task}"
    results="$task${NAME:+-$NAME}"
    trace="$work/traces/$results-$engine"
    [ "$engine" = eager ] || results+="-$engine"
    if [ -z "${LIVE:-}" ]; then
        [ -e "$trace/summary.json" ] || specpolicy benchmark policy="$policy" engine="$engine" window=tuned \
            count="${TRACE_COUNT:-200}" samplers="$samplers" output="$trace" \
            observations="checkpoints/$task/observations.safetensors"
        timing=(track.trace="$trace/chunks.csv" engine=openvino batch=16)
    fi
    specpolicy evaluate task="$task" policy="$policy" track=charged track.factors="${FACTORS:-[0,1]}" \
        samplers="$samplers" references="${REFERENCES:-[ddpm,ddim-10]}" "${timing[@]}" \
        episodes="${EPISODES:-100}" videos=1 output="$work/$results"
done
python benchmarks/harness_pages.py charged_clock "$work" "${RESULTS:-docs/results/$name.md}"
