# Recipes of the shipped policies that see states; sourced by the scripts that train such policies.

# task  demonstrations  noise  training steps  executed actions of a chunk
recipes="
lift          150 0.15  5000 8
can           200 0.15  8000 4
square        500 0.15 20000 4
push_t        500 0.20 12000 4
lift_conveyor 300 0.15  8000 4
push_t_moving 800 0.20 14000 4
"

# Of the training. PRECISION=float32 is several times as fast on a CPU without instructions for bfloat16.
precision="${PRECISION:-bfloat16}"

recipe() { # recipe TASK: its line without the task; ends the script where there is none
    local line
    line="$(awk -v task="$1" '$1 == task { print $2, $3, $4, $5 }' <<<"$recipes")"
    [ -n "$line" ] || {
        echo "${0##*/}: no task '$1': use one of" $(awk '{ print $1 }' <<<"$recipes") >&2
        exit 2
    }
    echo "$line"
}
