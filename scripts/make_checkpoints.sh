#!/usr/bin/env bash
# Makes the shipped policies from scratch: demonstrations, training, calibration of exact sampling, evaluation on seeds
# that were not trained on.
# Usage: scripts/make_checkpoints.sh                        all, one after the other
#        scripts/make_checkpoints.sh lift can can_tokens    these; NAME_tokens are policies of action tokens, NAME_image
#                                                           see through cameras, NAME_poses bear delays
# WORK (default outputs/checkpoints) keeps data, runs and evaluations; an interrupted run continues.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" test
source scripts/recipes.sh
work="${WORK:-outputs/checkpoints}"

make_checkpoint() {
    local task="$1" episodes="$2" noise="$3" steps="$4" executed="$5" start="$SECONDS"
    local data="$work/$task.hdf5" run="$work/$task" measured="$work/$task-evaluation"
    specpolicy collect task="$task" episodes="$episodes" noise="$noise" seed=0 output="$data"
    specpolicy train task="$task" data="$data" output="$run" steps="$steps" precision="$precision" \
        half_precision_weights=true policy.n_action_steps="$executed"
    local minutes=$(((SECONDS - start + 59) / 60))
    mkdir -p "checkpoints/$task"
    rm -f "checkpoints/$task/"{speculation,drafters}.* # of other weights
    cp "$run/model.safetensors" "$run/config.json" "checkpoints/$task/"
    specpolicy calibrate policy="checkpoints/$task"
    specpolicy calibrate policy="checkpoints/$task" learn=false engine=openvino
    [ "$task" != lift ] || specpolicy train_drafter policy="checkpoints/$task"
    specpolicy evaluate task="$task" policy="checkpoints/$task" 'samplers=[ddpm]' episodes=100 videos=0 \
        output="$measured"
    python scripts/describe_checkpoint.py "checkpoints/$task" "$measured/summary.json" "$episodes" "$noise" "$minutes"
}

# Policies of action tokens learn from the same demonstrations.
# task  demonstrations  noise  training steps  executed actions  actions of a chunk
token_recipes="
lift          150 0.15  4000 4  8
can           200 0.15  6000 4  8
push_t        500 0.20  6000 4 16
"

token_decoders='[confidence,cosine,threshold,random_order,raster,{name: confidence, tokens_per_step: 4}'
token_decoders+=',{name: confidence, sampled: false},{name: threshold, sampled: false}]'

make_token_checkpoint() {
    local task="$1" episodes="$2" noise="$3" steps="$4" executed="$5" horizon="$6" start="$SECONDS"
    local data="$work/$task.hdf5" run="$work/${task}_tokens" measured="$work/${task}_tokens-evaluation"
    local shipped="checkpoints/${task}_tokens"
    specpolicy collect task="$task" episodes="$episodes" noise="$noise" seed=0 output="$data"
    specpolicy train task="$task" policy=tokens data="$data" output="$run" steps="$steps" precision="$precision" \
        half_precision_weights=true policy.horizon="$horizon" policy.n_action_steps="$executed"
    local minutes=$(((SECONDS - start + 59) / 60))
    mkdir -p "$shipped"
    cp "$run/model.safetensors" "$run/config.json" "$shipped/"
    specpolicy calibrate policy="$shipped" held_out=400 "decoders=$token_decoders"
    specpolicy evaluate task="$task" policy="$shipped" 'samplers=[cosine,confidence,random_order]' episodes=100 videos=0 \
        output="$measured"
    python scripts/describe_checkpoint.py "$shipped" "$measured/summary.json" "$episodes" "$noise" "$minutes"
}

# Policies that see have images of their own; their networks are small enough for two cores and for 4 MB.
# task  demonstrations  noise  training steps  executed actions  cameras  options of the calibration
image_recipes="
lift          150 0.15  3000 8 agentview,robot0_eye_in_hand count=1500 episodes=60 chains=500 rounds=250 invented=6000 student_blocks=0 training_steps=2000
push_t        500 0.20 10000 4 top count=400 episodes=6 chains=300 rounds=150 invented=2000 student=false
"

make_image_checkpoint() {
    local task="$1" episodes="$2" noise="$3" steps="$4" executed="$5" cameras="task.cameras=[$6]" start="$SECONDS"
    local data="$work/${task}_image.hdf5" run="$work/${task}_image" measured="$work/${task}_image-evaluation"
    local shipped="checkpoints/${task}_image" calibration
    read -ra calibration <<<"$7"
    specpolicy collect task="$task" "$cameras" episodes="$episodes" noise="$noise" seed=0 output="$data"
    specpolicy train task="$task" policy=unet_image policy.vision.kind=small +policy.vision.widths=[16,32,64,64] \
        policy.network.down_dims=[32,64,128] data="$data" output="$run" steps="$steps" batch_size=64 \
        half_precision_weights=true policy.n_action_steps="$executed"
    local minutes=$(((SECONDS - start + 59) / 60))
    mkdir -p "$shipped"
    rm -f "$shipped"/speculation.* # of other weights
    cp "$run/model.safetensors" "$run/config.json" "$shipped/"
    # It plays with the cameras that the checkpoint names.
    specpolicy calibrate policy="$shipped" engine=openvino held_out_megabytes=0.35 "${calibration[@]}"
    specpolicy evaluate task="$task" "$cameras" policy="$shipped" 'samplers=[ddpm]' episodes=100 videos=0 \
        output="$measured"
    python scripts/describe_checkpoint.py "$shipped" "$measured/summary.json" "$episodes" "$noise" "$minutes"
}

# Policies that bear delays: actions are poses, they continue committed ones and predict observations. Their networks are
# small, for 3 MB; one of twice the size did no better.
# task          demonstrations  noise  training steps  executed actions  most committed actions
pose_recipes="
lift_conveyor 300 0.15 8000 4 8
"

make_pose_checkpoint() {
    local task="$1" episodes="$2" noise="$3" steps="$4" executed="$5" committed="$6" start="$SECONDS"
    local data="$work/${task}_poses.hdf5" run="$work/${task}_poses" measured="$work/${task}_poses-evaluation"
    local shipped="checkpoints/${task}_poses" poses=+task.kwargs.absolute_actions=true
    specpolicy collect task="$task" "$poses" episodes="$episodes" noise="$noise" seed=0 output="$data"
    specpolicy train task="$task" "$poses" data="$data" output="$run" steps="$steps" precision="$precision" \
        half_precision_weights=true policy.n_action_steps="$executed" policy.network.down_dims=[32,64,128] \
        policy.prefix="$committed" predict=8
    local minutes=$(((SECONDS - start + 59) / 60))
    mkdir -p "$shipped"
    rm -f "$shipped"/speculation.* # of other weights
    cp "$run/"{model,prediction}.safetensors "$run/"{config,prediction}.json "$shipped/"
    specpolicy calibrate policy="$shipped" engine=openvino count=3000 episodes=40 chains=1000 rounds=400 student=false
    specpolicy evaluate task="$task" "$poses" policy="$shipped" 'samplers=[ddim-10]' track=delay 'track.delays=[0,4]' \
        'track.swept_execute_steps=[]' 'stitching=[predicted]' episodes=300 videos=0 output="$measured"
    python scripts/describe_checkpoint.py "$shipped" "$measured/summary.json" "$episodes" "$noise" "$minutes"
}

while read -r task episodes noise steps executed; do
    [ -n "$task" ] || continue
    [ "$#" -eq 0 ] || [[ " $* " == *" $task "* ]] || continue
    make_checkpoint "$task" "$episodes" "$noise" "$steps" "$executed" </dev/null
done <<<"$recipes"
while read -r task episodes noise steps executed horizon; do
    [ -n "$task" ] || continue
    [ "$#" -eq 0 ] || [[ " $* " == *" ${task}_tokens "* ]] || continue
    make_token_checkpoint "$task" "$episodes" "$noise" "$steps" "$executed" "$horizon" </dev/null
done <<<"$token_recipes"
while read -r task episodes noise steps executed cameras calibration; do
    [ -n "$task" ] || continue
    [ "$#" -eq 0 ] || [[ " $* " == *" ${task}_image "* ]] || continue
    make_image_checkpoint "$task" "$episodes" "$noise" "$steps" "$executed" "$cameras" "$calibration" </dev/null
done <<<"$image_recipes"
while read -r task episodes noise steps executed committed; do
    [ -n "$task" ] || continue
    [ "$#" -eq 0 ] || [[ " $* " == *" ${task}_poses "* ]] || continue
    make_pose_checkpoint "$task" "$episodes" "$noise" "$steps" "$executed" "$committed" </dev/null
done <<<"$pose_recipes"
