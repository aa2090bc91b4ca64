#!/usr/bin/env bash
# Success of the shipped policies against the delay of inference (docs/results/delay.md): sequential DDPM, given delays,
# the same on every machine. Hours on two cores; the same command goes on where it stopped.
# Usage: benchmarks/delay_curves.sh                every directory of checkpoints/
#        benchmarks/delay_curves.sh lift can       these
# EPISODES (100) of each point; DELAYS ([0,1,2,4,8,12]); HORIZONS ([1,2,4,8,12]), at a delay of 1; SAMPLER (ddpm);
# ENGINE (openvino) runs the network, for BATCH (16) episodes at once; WORK (outputs/benchmarks/delay) keeps the results;
# RESULTS (docs/results/delay.md) is the page.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/setup.sh" test
work="${WORK:-outputs/benchmarks/delay}"
tasks=("$@")
[ "$#" -gt 0 ] || for directory in checkpoints/*/; do
    [[ "$directory" == *_tokens/ ]] || tasks+=("$(basename "$directory")")
done
for task in "${tasks[@]}"; do
    specpolicy evaluate task="$task" policy="checkpoints/$task" samplers="[${SAMPLER:-ddpm}]" track=delay \
        track.delays="${DELAYS:-[0,1,2,4,8,12]}" track.swept_execute_steps="${HORIZONS:-[1,2,4,8,12]}" \
        engine="${ENGINE:-openvino}" batch="${BATCH:-16}" episodes="${EPISODES:-100}" videos=0 output="$work/$task"
done
python benchmarks/harness_pages.py delay "$work" "${RESULTS:-docs/results/delay.md}"
