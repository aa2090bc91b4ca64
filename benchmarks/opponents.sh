#!/usr/bin/env bash
# Trains minimal iterative policies (two regressions, two calls) with the networks and demonstrations of the shipped
# diffusion policies and plays both on the same seeds: success, also at a delay, time of a chunk, and for Push-T the ways
# round the T (docs/results/opponents.md). A step of training takes 64 windows, with two questions each: as many rows as
# diffusion's 128. Takes many hours on two cores; the same command continues it.
# Usage: benchmarks/opponents.sh                 lift, push_t, square, lift_conveyor
#        benchmarks/opponents.sh lift            this one
# EPISODES (300): episodes of each sampler. ENGINE (openvino): runs the network. BATCH (16): episodes at once. CHUNKS
# (100): chunks that are timed. WORK (outputs/benchmarks/opponents): data, policies and results. RESULTS
# (docs/results/opponents.md): the page.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/setup.sh" test
work="${WORK:-outputs/benchmarks/opponents}"
source scripts/recipes.sh
tasks=("$@")
[ "$#" -gt 0 ] || tasks=(lift push_t square lift_conveyor)

for task in "${tasks[@]}"; do
    line="$(recipe "$task")"
    read -r episodes noise training executed <<<"$line"
    place="$work/$task"
    mkdir -p "$place"
    specpolicy collect task="$task" episodes="$episodes" noise="$noise" seed=0 output="$place/data.hdf5"
    specpolicy train task="$task" data="$place/data.hdf5" output="$place/policy" steps="$training" precision="$precision" \
        half_precision_weights=true policy.n_action_steps="$executed" policy.objective=mip batch_size=64
    common=(task="$task" engine="${ENGINE:-openvino}" batch="${BATCH:-16}" episodes="${EPISODES:-300}" videos=0)
    specpolicy evaluate "${common[@]}" policy="$place/policy" samplers=[ddpm,ddpm-1] output="$place/mip"
    specpolicy evaluate "${common[@]}" policy="checkpoints/$task" samplers=[ddpm,ddim-10] output="$place/diffusion"
    specpolicy evaluate "${common[@]}" policy="$place/policy" samplers=[ddpm] track=delay track.delays=[0,1,2,4] \
        track.swept_execute_steps=[] output="$place/delay"
    for one in mip:"$place/policy":[ddpm] diffusion:"checkpoints/$task":[ddpm,ddim-10,recycled,recycled-16]; do
        IFS=: read -r name policy samplers <<<"$one"
        [ -e "$place/times-$name/summary.json" ] ||
            specpolicy benchmark policy="$policy" engine="${ENGINE:-openvino}" output="$place/times-$name" \
                count="${CHUNKS:-100}" observations="checkpoints/$task/observations.safetensors" samplers="$samplers"
    done
    [ "$task" != push_t ] || [ -e "$place/ways.json" ] ||
        python benchmarks/ways_round.py --policies checkpoints/push_t "$place/policy" --output "$place/ways.json"
done
python benchmarks/opponents_page.py "$work" "${RESULTS:-docs/results/opponents.md}"
