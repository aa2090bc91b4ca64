"""MuJoCo tasks and their scripted experts, registered with Gymnasium as `specpolicy/<Task>-v0`."""
