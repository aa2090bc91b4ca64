"""Draw the six tasks side by side, each one second into an expert's episode: python scripts/draw_tasks.py out.png"""

import sys

import gymnasium
import matplotlib.pyplot as plt
import numpy as np

from specpolicy_envs import TASKS, make_expert

SIZE = 256


def frame(env_id: str, seed: int, seconds: float = 1.0) -> np.ndarray:
    """Return the picture (SIZE, SIZE, 3) after `seconds` of the scripted expert."""
    env = gymnasium.make(env_id, render_mode="rgb_array", render_size=(SIZE, SIZE))
    expert = make_expert(env_id, seed)
    observation, _ = env.reset(seed=seed)
    for _ in range(round(seconds * env.unwrapped.control_hz)):
        observation, _, terminated, truncated, _ = env.step(expert.act(observation))
        if terminated or truncated:
            break
    picture = env.render()
    env.close()
    return picture


def main() -> None:
    """See the module's docstring."""
    figure, axes = plt.subplots(1, len(TASKS), figsize=(2.2 * len(TASKS), 2.5))
    for axis, env_id in zip(axes, TASKS, strict=True):
        axis.imshow(frame(env_id, seed=3))
        axis.set_title(env_id.removeprefix("specpolicy/").removesuffix("-v0"), fontsize=9)
        axis.axis("off")
    figure.tight_layout(pad=0.3)
    figure.savefig(sys.argv[1], dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    main()
