#!/usr/bin/env bash
# Measures the samplers on the shipped policies and writes the tables of docs/results/samplers.md. Hours on two cores,
# on a machine that does nothing else; what an interrupted run has finished is not measured again.
# Usage: benchmarks/samplers.sh            every directory of checkpoints/ that has recorded observations
#        benchmarks/samplers.sh lift can   these
# WORK (default outputs/benchmark/samplers) keeps the results; COUNT (200) chunks of each sampler are counted, TIME_COUNT
# (50) timed; LARGE ("lift") names the policies whose calls are timed on the large network, LARGE_COUNT (30) the
# chunks there; ENGINES ("eager openvino") what runs the networks.
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
    # How many calls a chunk takes when a round may draft to the end; the engine does not matter for that.
    trained=""
    [ ! -e "checkpoints/$policy/drafters.json" ] || trained="$independent,$corrected,"
    measure "$policy/calls" policy="checkpoints/$policy" engine="${engines[-1]}" threads=1 window=end 'steps=[100,16]' \
        "samplers=[ddpm,ddim-10,asd,${trained}$free,residual,block,$uncalibrated,$linear,$straight,recycled]"
    # How long it takes, with the window of each sampler that is best on this machine.
    for engine in "${engines[@]}"; do
        COUNT="${TIME_COUNT:-50}" measure "$policy/time-$engine" policy="checkpoints/$policy" engine="$engine" \
            window=tuned 'steps=[100,16]' 'samplers=[ddpm,ddim-10,asd,block,recycled]'
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
