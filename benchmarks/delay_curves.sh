#!/usr/bin/env bash
# Success of the shipped policies against the delay of inference (docs/results/delay.md): sequential DDPM with given
# delays, so results are the same on every machine. Takes hours on two cores; the same command continues it.
# Usage: benchmarks/delay_curves.sh                every task with a shipped policy of its own
#        benchmarks/delay_curves.sh lift can       these
# EPISODES (100): episodes of each point. DELAYS ([0,1,2,4,8,12]). HORIZONS ([1,2,4,8,12]): played at a delay of 1.
# SAMPLER (ddpm). ENGINE (openvino): runs the network. BATCH (16): episodes at once. POLICY (checkpoints/TASK): another
# policy of the task, and NAME, which is added to the name of its results. WORK (outputs/benchmarks/delay): directory of
# the results. RESULTS (docs/results/delay.md): the page.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/setup.sh" test
work="${WORK:-outputs/benchmarks/delay}"
tasks=("$@")
[ "$#" -gt 0 ] || for directory in checkpoints/*/; do
    task="$(basename "$directory")"
    [ ! -e "configs/task/$task.yaml" ] || tasks+=("$task") # not policies of tokens, images or poses
done
for task in "${tasks[@]}"; do
    specpolicy evaluate task="$task" policy="${POLICY:-checkpoints/$task}" samplers="[${SAMPLER:-ddpm}]" track=delay \
        track.delays="${DELAYS:-[0,1,2,4,8,12]}" track.swept_execute_steps="${HORIZONS:-[1,2,4,8,12]}" \
        engine="${ENGINE:-openvino}" batch="${BATCH:-16}" episodes="${EPISODES:-100}" videos=0 \
        output="$work/$task${NAME:+-$NAME}"
done
python benchmarks/harness_pages.py delay "$work" "${RESULTS:-docs/results/delay.md}"
