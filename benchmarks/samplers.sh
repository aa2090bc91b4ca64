#!/usr/bin/env bash
# Measures the samplers on the shipped policies and writes the tables of docs/results/samplers.md. Takes hours on two
# cores; the machine must do nothing else. Finished parts of an interrupted run are not measured again.
# Usage: benchmarks/samplers.sh            every directory of checkpoints/ that has recorded observations
#        benchmarks/samplers.sh lift can   these
# WORK (outputs/benchmark/samplers): directory of the results. COUNT (200): chunks of each sampler that are counted.
# TIME_COUNT (50): chunks that are timed. LARGE ("lift"): policies whose calls are timed on the large network, with
# LARGE_COUNT (30) chunks. ENGINES ("eager openvino"): engines that run the networks. OPPONENTS
# (outputs/benchmarks/opponents): minimal iterative policies of benchmarks/opponents.sh; those that are there are timed too.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/setup.sh" test
work="${WORK:-outputs/benchmark/samplers}"
policies=("$@")
if [ "$#" -eq 0 ]; then
    for file in checkpoints/*/observations.safetensors; do
        [[ "$file" != *_tokens/* ]] || continue # benchmarks/tokens.py measures those
        policies+=("$(basename "$(dirname "$file")")")
    done
fi
free='{name: reflection, drafter: free, label: reflection-free}'
uncalibrated='{name: recycled, calibrated: false, label: recycled-uncalibrated}'
linear='{name: recycled, student: false, label: recycled-linear}'
straight='{name: recycled, rejoin: false, label: recycled-straight}'
independent='{name: reflection, drafter: independent, label: reflection-independent}'
corrected='{name: reflection, drafter: corrected, label: reflection-corrected}'
read -ra engines <<<"${ENGINES:-eager openvino}"

# measure <directory of the results> key=value ...
measure() {
    local output="$work/$1"
    shift
    [ -e "$output/summary.json" ] || specpolicy benchmark output="$output" count="${COUNT:-200}" "$@"
}

for policy in "${policies[@]}"; do
    # Calls per chunk when a round may draft to the end; the engine does not matter here.
    trained=""
    [ ! -e "checkpoints/$policy/drafters.json" ] || trained="$independent,$corrected,"
    measure "$policy/calls" policy="checkpoints/$policy" engine="${engines[-1]}" threads=1 window=end 'steps=[100,16]' \
        "samplers=[ddpm,ddim-10,asd,${trained}$free,residual,block,$uncalibrated,$linear,$straight,recycled]"
    # Time per chunk, with each sampler's best draft length on this machine.
    for engine in "${engines[@]}"; do
        COUNT="${TIME_COUNT:-50}" measure "$policy/time-$engine" policy="checkpoints/$policy" engine="$engine" \
            window=tuned 'steps=[100,16]' 'samplers=[ddpm,ddim-10,asd,block,recycled]'
        opponent="${OPPONENTS:-outputs/benchmarks/opponents}/$policy/policy"
        [ ! -e "$opponent/model.safetensors" ] ||
            COUNT="${TIME_COUNT:-50}" measure "$policy/mip-$engine" policy="$opponent" engine="$engine" \
                observations="checkpoints/$policy/observations.safetensors" 'samplers=[ddpm]'
    done
done
read -ra large <<<"${LARGE-lift}"
for policy in "${large[@]}"; do
    [[ " ${policies[*]} " == *" $policy "* ]] || continue
    for engine in "${engines[@]}"; do
        COUNT="${LARGE_COUNT:-30}" measure "$policy/large-$engine" policy="checkpoints/$policy" engine="$engine" \
            window=tuned 'steps=[100,16]' 'samplers=[ddpm,ddim-10,asd,block,recycled]' \
            'network={down_dims: [256, 512, 1024], diffusion_step_embed_dim: 256}'
    done
done
python benchmarks/samplers_tables.py "$work" "${RESULTS:-docs/results/samplers.md}"
