"""Speed of the tasks' cameras: frames per second, and the time of a control step for comparison.

    python benchmarks/cameras.py [--seconds 2]

Prints for each task, camera and size, in ms: `draw`, one image (median; on a busy machine look at `quickest`, the 10 %
quantile), and the same as frames per second; `keep`, an image on demand that nobody looks at; `step`, one control step
without cameras; `loop`, a control step with this camera when a policy looks at 2 images of 8. The last line names the
renderer.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Callable

import gymnasium
import numpy as np

import specpolicy_envs  # noqa: F401

CAMERAS = {
    "specpolicy/PushT-v0": ["top"],
    "specpolicy/PushTMoving-v0": ["top"],
    "specpolicy/Lift-v0": ["agentview", "robot0_eye_in_hand"],
    "specpolicy/LiftConveyor-v0": ["agentview", "robot0_eye_in_hand"],
    "specpolicy/PickPlaceCan-v0": ["agentview", "robot0_eye_in_hand"],
    "specpolicy/NutAssemblySquare-v0": ["agentview", "robot0_eye_in_hand"],
}
SIZES = ((84, 84), (240, 320))
LOOKED_AT, REPLAN_EVERY = 2, 8


def milliseconds(call: Callable[[], object], seconds: float) -> tuple[float, float]:
    """Return median and fastest tenth of the times of a call, repeated for this long, at least ten times."""
    times: list[float] = []
    call()
    while len(times) < 10 or sum(times) < seconds:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    median, quick = np.quantile(times, [0.5, 0.1])
    return 1e3 * float(median), 1e3 * float(quick)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="seconds to measure each figure")
    seconds = parser.parse_args().seconds
    print("| task | camera | size | draw | quickest | frames/s | keep | step | loop |\n|---" + 8 * "|---" + "|")
    for env_id, names in CAMERAS.items():
        plain = gymnasium.make(env_id, disable_env_checker=True).unwrapped
        plain.reset(seed=0)
        rest = np.asarray(plain.resting_action(), np.float32)  # type: ignore[attr-defined]
        step, _ = milliseconds(lambda env=plain, action=rest: env.step(action), seconds)  # type: ignore[misc]
        plain.close()
        for name in names:
            for size in SIZES:
                env = gymnasium.make(
                    env_id, cameras=[name], camera_size=size, pictures_on_demand=True, disable_env_checker=True
                ).unwrapped
                env.reset(seed=0)
                views, data = env._views, env.data  # type: ignore[attr-defined]
                draw, quick = milliseconds(lambda v=views, d=data: np.asarray(*v.observe(d).values()), seconds)  # type: ignore[misc]
                keep, _ = milliseconds(lambda v=views, d=data: v.observe(d), seconds / 4)  # type: ignore[misc]
                loop = step + keep + draw * LOOKED_AT / REPLAN_EVERY
                env.close()
                pixels = f"{size[0]} x {size[1]}"
                print(
                    f"| {env_id.split('/')[1]} | {name} | {pixels} | {draw:.1f} | {quick:.1f} | {1e3 / draw:.0f} | "
                    f"{keep:.3f} | {step:.1f} | {loop:.1f} |",
                    flush=True,
                )
    print(f"\ndrawn by {renderer()}")


def renderer() -> str:
    """Return the name of OpenGL's renderer."""
    from specpolicy_envs.rendering import _gl_context

    context = _gl_context(8, 8)
    context.make_current()
    gl = importlib.import_module("OpenGL.GL")
    told = gl.glGetString(gl.GL_RENDERER)
    context.free()
    return told.decode() if isinstance(told, bytes) else str(told)


if __name__ == "__main__":
    main()
