#!/usr/bin/env bash
# Takes the loss by a delay of four steps apart and trains policies that bear it (docs/results/delay.md): what an oracle
# saves that knows the arm of the step from which a chunk counts; what older observations cost without a delay; policies
# that have learnt to continue executed actions and predict observations, with changes of pose and with poses as actions.
# Takes hours on two cores; the same command continues it.
# Usage: benchmarks/delay_causes.sh                 all tasks
#        benchmarks/delay_causes.sh square can      these
# EPISODES (100), SAMPLER (ddim-10), ENGINE (openvino), BATCH (16), KINDS (changes poses positions), WORK
# (outputs/benchmarks/delay_causes), RESULTS (docs/results/delay.md).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh test
export PYTHONPATH="$PWD/benchmarks${PYTHONPATH:+:$PYTHONPATH}"
work="${WORK:-outputs/benchmarks/delay_causes}"

source scripts/recipes.sh
# task  environment  most committed actions  kinds of actions
tasks="
lift_conveyor LiftConveyor      8 changes poses
can           PickPlaceCan      8 changes poses
square        NutAssemblySquare 4 changes poses
push_t        PushT             8 positions
"

play() { # play POLICY OUTPUT settings ...
    specpolicy evaluate task="$task" policy="$1" output="$work/$task/$2" samplers="[${SAMPLER:-ddim-10}]" \
        engine="${ENGINE:-openvino}" batch="${BATCH:-16}" episodes="${EPISODES:-100}" videos=0 "${@:3}"
}

take_apart() {
    local task="$1" line episodes noise steps
    line="$(recipe "$task")"
    read -r episodes noise steps _ <<<"$line"
    local oracle=(task.id="delay_oracles:Old$2-v0" +task.kwargs.scene_age=4)
    play "checkpoints/$task" shipped/delay track=delay track.delays=[0,4] track.swept_execute_steps=[8,12] \
        track.swept_at=0
    play "checkpoints/$task" shipped/arm_known "${oracle[@]}"
    play "checkpoints/$task" shipped/continued track=delay track.delays=[4] stitching=[inpaint]
    for kind in $4; do
        [[ " ${KINDS:-changes poses positions} " == *" $kind "* ]] || continue
        local data="$work/data/${task}_$kind.hdf5" policy="$work/policies/${task}_$kind" actions=()
        [ "$kind" != poses ] || actions=(+task.kwargs.absolute_actions=true)
        mkdir -p "$work/data"
        specpolicy collect task="$task" "${actions[@]}" episodes="$episodes" noise="$noise" seed=0 output="$data"
        specpolicy train task="$task" "${actions[@]}" data="$data" output="$policy" steps="$steps" precision="$precision" \
            half_precision_weights=true policy.n_action_steps=4 policy.prefix="$3" predict=8
        play "$policy" "$kind/delay" "${actions[@]}" track=delay track.delays=[0,4]
        play "$policy" "$kind/continued" "${actions[@]}" track=delay track.delays=[4] stitching=[predicted,trained,inpaint]
        play "$policy" "$kind/arm_known" "${actions[@]}" "${oracle[@]}"
        play "$policy" "$kind/in_flight" "${actions[@]}" track=delay track.delays=[4] stitching=[predicted] in_flight=2 \
            execute_steps=2
    done
}

while read -r task class prefix kinds; do
    [ -n "$task" ] || continue
    [ "$#" -eq 0 ] || [[ " $* " == *" $task "* ]] || continue
    take_apart "$task" "$class" "$prefix" "$kinds" </dev/null
done <<<"$tasks"
python benchmarks/delay_causes.py "$work" "${RESULTS:-docs/results/delay.md}"
