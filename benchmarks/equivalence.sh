#!/usr/bin/env bash
# Tests whether recycled and block have the success of sequential DDPM, within 5 points (docs/results/equivalence.md):
# two one-sided tests on episodes paired by seed, in a world that waits. Takes hours; the same command continues it.
# Usage: benchmarks/equivalence.sh          lift and can
#        benchmarks/equivalence.sh lift     this one
# EPISODES (360): episodes of each sampler; enough with 80 % probability if the policy solves 95 %. MARGIN (0.05).
# SAMPLERS ([ddpm,block,recycled]): the first is the reference. ENGINE (openvino): runs the network. BATCH (16): episodes
# at once. WORK (outputs/benchmarks/equivalence): directory of the results. RESULTS (docs/results/equivalence.md): the page.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/setup.sh" test
work="${WORK:-outputs/benchmarks/equivalence}"
tasks=("$@")
[ "$#" -gt 0 ] || tasks=(lift can)
for task in "${tasks[@]}"; do
    specpolicy evaluate task="$task" policy="checkpoints/$task" samplers="${SAMPLERS:-[ddpm,block,recycled]}" \
        margin="${MARGIN:-0.05}" expected_success=0.95 \
        engine="${ENGINE:-openvino}" batch="${BATCH:-16}" episodes="${EPISODES:-360}" videos=0 output="$work/$task"
done
python benchmarks/harness_pages.py equivalence "$work" "${RESULTS:-docs/results/equivalence.md}"
