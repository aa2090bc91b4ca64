#!/usr/bin/env bash
# Trains flow policies on the demonstrations of the shipped diffusion policies and plays both: K steps of the flow's ODE
# against the ancestral chain of K steps, beside DDPM and DDIM, and the calls of the exact samplers on the ancestral
# chains (docs/results/flow.md). Takes many hours on two cores; the same command continues it.
# Usage: benchmarks/flow.sh                      lift, push_t, square
#        benchmarks/flow.sh lift                 this one
# EPISODES (300): episodes of each sampler, paired by seed. STEPS (4 10 16 100): K. ENGINE (openvino): runs the network.
# BATCH (16): episodes at once. CHUNKS (100): chunks whose calls are counted. WORK (outputs/benchmarks/flow): directory of
# data, policies and results. RESULTS (docs/results/flow.md): the page.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/setup.sh" test
work="${WORK:-outputs/benchmarks/flow}"
source scripts/recipes.sh
tasks=("$@")
[ "$#" -gt 0 ] || tasks=(lift push_t square)
read -ra steps <<<"${STEPS:-4 10 16 100}"

# named ddpm euler: [ddpm-4,euler-4,ddpm-10,...]
named() {
    local list="" count name
    for count in "${steps[@]}"; do
        for name in "$@"; do list+="${list:+,}$name-$count"; done
    done
    echo "[$list]"
}

for task in "${tasks[@]}"; do
    line="$(recipe "$task")"
    read -r episodes noise training executed <<<"$line"
    place="$work/$task"
    mkdir -p "$place"
    specpolicy collect task="$task" episodes="$episodes" noise="$noise" seed=0 output="$place/data.hdf5"
    specpolicy train task="$task" data="$place/data.hdf5" output="$place/policy" steps="$training" precision="$precision" \
        half_precision_weights=true policy.n_action_steps="$executed" policy.objective=flow
    common=(task="$task" engine="${ENGINE:-openvino}" batch="${BATCH:-16}" episodes="${EPISODES:-300}" videos=0)
    specpolicy evaluate "${common[@]}" policy="$place/policy" samplers="$(named ddpm euler)" output="$place/flow"
    specpolicy evaluate "${common[@]}" policy="checkpoints/$task" samplers="$(named ddpm ddim)" output="$place/diffusion"
    [ -e "$place/calls/summary.json" ] ||
        specpolicy benchmark policy="$place/policy" engine="${ENGINE:-openvino}" window=end output="$place/calls" \
            count="${CHUNKS:-100}" observations="checkpoints/$task/observations.safetensors" \
            steps="[$(IFS=,; echo "${steps[*]}")]" 'samplers=[ddpm,asd,block,recycled]'
done
python benchmarks/flow_page.py "$work" "${RESULTS:-docs/results/flow.md}"
