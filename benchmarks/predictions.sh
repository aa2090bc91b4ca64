#!/usr/bin/env bash
# What it costs to draw from a policy, by what its network was trained to predict: epsilon, v_prediction or sample.
# Trains the lift policy three times on the same demonstrations, plays it, and counts the calls of the samplers without
# a calibration; writes the tables of docs/results/predictions.md. An hour on two cores; goes on where it stopped.
# EPISODES (100) to play with each; COUNT (100) chunks of each sampler; STEPS (5000) of training;
# WORK (outputs/benchmarks/predictions) keeps the results; RESULTS (docs/results/predictions.md) is the page.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/setup.sh" test
work="${WORK:-outputs/benchmarks/predictions}"
free='{name: reflection, drafter: free, label: reflection-free}'
specpolicy collect task=lift episodes=100 noise=0.15 seed=0 output="$work/lift.hdf5"
for prediction in epsilon v_prediction sample; do
    specpolicy train task=lift data="$work/lift.hdf5" output="$work/$prediction" steps="${STEPS:-5000}" \
        precision=bfloat16 threads=1 policy.chain.prediction="$prediction"
    specpolicy evaluate task=lift policy="$work/$prediction" 'samplers=[ddpm]' engine=openvino \
        episodes="${EPISODES:-100}" videos=0 output="$work/$prediction/evaluation"
    [ -e "$work/$prediction/calls/summary.json" ] ||
        specpolicy benchmark policy="$work/$prediction" observations=checkpoints/lift/observations.safetensors \
            engine=openvino window=end 'steps=[100,16]' count="${COUNT:-100}" output="$work/$prediction/calls" \
            "samplers=[ddpm,asd,$free,residual,block,recycled]"
done
python benchmarks/samplers_tables.py "$work" "${RESULTS:-docs/results/predictions.md}"
