"""Draw docs/stitching.png: one chunk of push_t after the last one, joined in different ways at a delay of four steps.

python scripts/draw_stitching.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from specpolicy import Committed, load_policy
from specpolicy.tasks import make_task_env

ROOT = Path(__file__).resolve().parents[1]
DELAY, SEED, BEFORE = 4, 3, 24  # control steps, of the episode, played before the picture
PANELS = {
    "continue_chunk": "continue_chunk: aligned by control step",
    "naive_switch": "naive_switch: from its first action",
    "inpaint": "inpaint: drawn given what is executed",
    "rtc": "rtc: and softly towards the last plan",
}


def main() -> None:
    policy = load_policy(ROOT / "checkpoints/push_t")
    env = make_task_env(dict(policy.config.task or {}))
    frames = [env.reset(seed=SEED)[0]] * policy.n_obs_steps
    first = policy.first_action

    def plan(**given: Any) -> np.ndarray:
        history = {key: np.stack([frame[key] for frame in frames[-policy.n_obs_steps :]]) for key in frames[-1]}
        out = policy.predict(history, sampler="ddpm", generator=torch.Generator().manual_seed(SEED), **given)
        return out.actions[0, first:].numpy()

    def go(actions: np.ndarray) -> None:
        for action in actions:
            frames.append(env.step(action)[0])

    for _ in range(BEFORE // DELAY):
        go(plan()[:DELAY])
    last = plan()
    go(last[:DELAY])
    known = last[DELAY:]
    steps = np.arange(len(last)) - DELAY  # 0: the newest observation
    figure, axes = plt.subplots(1, len(PANELS), figsize=(14, 3.2), sharey=True, layout="constrained")
    for axis, (way, title) in zip(axes, PANELS.items(), strict=True):
        given = {"committed": Committed(known, DELAY, way)} if way in ("inpaint", "rtc") else {}
        new = plan(**given)
        start = DELAY if way == "naive_switch" else 0
        played = new[: len(new) - DELAY] if way == "naive_switch" else new[DELAY:]
        axis.axvspan(0, DELAY - 0.5, color="0.93")
        axis.plot(steps, 100 * last[:, 0], ":", color="tab:gray", label="last chunk")
        axis.plot(np.arange(len(new)) + start, 100 * new[:, 0], ":", color="tab:orange", label="new chunk")
        executed = np.concatenate([last[: 2 * DELAY], played])
        axis.plot(np.arange(len(executed)) - DELAY, 100 * executed[:, 0], "k.-", lw=1, label="executed")
        axis.set(title=title, xlabel="control step after the observation", xlim=(-DELAY, 14))
    axes[0].set_ylabel("target of the pusher, x in cm")
    axes[0].legend(frameon=False)
    figure.savefig(ROOT / "docs/stitching.png", dpi=80)
    env.close()


if __name__ == "__main__":
    main()
