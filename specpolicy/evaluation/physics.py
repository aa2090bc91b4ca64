"""A fingerprint of a task's physics: what its environment does after a fixed reset under fixed actions.

The success of one policy on one task differs between two versions of a simulator, or two copies of its models. Versions
say what is installed; this says what it does. It is a sample: a difference that shows in contacts alone may come later
than its last step, and `specpolicy replay` of demonstrations then shows it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from specpolicy.evaluation.departures import departure
from specpolicy.evaluation.tapes import vectors
from specpolicy.fingerprints import LENGTH

if TYPE_CHECKING:
    import gymnasium

SEED, STEPS = 0, 24
AGAIN = 3  # steps of a second reset, which tells whether the seed decides
DRAWN = 4  # steps in place of STEPS where an image is drawn at each of them, whether one looks at it or not
DECIMALS = 4  # of the numbers behind a hash: what another processor rounds otherwise should not change it
# Numbers of a compiled MuJoCo scene: its options, bodies, shapes, joints, motors and meshes.
MODEL = (
    *("opt.timestep", "opt.gravity", "opt.integrator", "opt.solver", "opt.iterations", "opt.cone", "opt.impratio"),
    *("body_mass", "geom_size", "geom_friction", "geom_solref", "geom_solimp", "dof_damping", "dof_armature"),
    *("dof_frictionloss", "jnt_range", "actuator_gainprm", "actuator_biasprm", "actuator_forcerange", "mesh_vert"),
)


@dataclass(frozen=True)
class Physics:
    """What a task's environment does.

    Attributes:
        values: (T, ...) of each observed key that is no image, and the reward, as lists; row t is after t steps.
        seeded: whether the seed decides what it does; if not, the values say nothing.
        model: hashes of the numbers of its MuJoCo scene, by name; empty for other simulators.
    """

    values: Mapping[str, Any]
    seeded: bool = True
    model: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str | None:
        """16 hexadecimal digits of the rounded values; None if the seed does not decide."""
        return hashed(_arrays(self)) if self.seeded else None


def probe(env: gymnasium.Env) -> Physics:
    """Reset an environment by a fixed seed and drive it by fixed, smooth actions for some steps."""
    values = _drive(env, STEPS)
    again = _drive(env, AGAIN)
    begun = {key: rows[: len(again[key])] for key, rows in values.items()}
    seeded = departure(begun, again, tolerance=0.0) is None
    return Physics({key: rows.tolist() for key, rows in values.items()} if seeded else {}, seeded, model_hashes(env))


def difference(one: Physics, other: Physics) -> str | None:
    """Say where two fingerprints depart from each other; None if they agree, or if nothing can be compared."""
    for name in one.model:
        if other.model and one.model[name] != other.model.get(name):
            return f"{name} of the scene"
    if not (one.seeded and other.seeded):
        return None
    if set(one.values) != set(other.values):
        return "what is observed"
    found = departure(_arrays(one), _arrays(other))
    return None if found is None else str(found)


def model_hashes(env: gymnasium.Env) -> dict[str, str]:
    """Return hashes of the numbers of an environment's compiled MuJoCo scene; {} if it shows none."""
    model: Any = getattr(env.unwrapped, "model", None)
    if not hasattr(model, "geom_friction"):
        return {}
    found = {}
    for name in MODEL:
        value: Any = model
        for part in name.split("."):
            value = getattr(value, part, None)
        if value is not None:
            found[name] = hashed({name: np.asarray(value)})
    return found


def hashed(arrays: Mapping[str, np.ndarray]) -> str:
    """Hash arrays by their numbers to five significant digits, or four decimals if they are below one."""
    digest = hashlib.sha256()
    for key, values in sorted(arrays.items()):
        numbers = np.nan_to_num(np.asarray(values, dtype=np.float64))
        exponent = np.floor(np.log10(np.maximum(np.abs(numbers), 1.0)))
        digits = np.rint(numbers / 10.0**exponent * 10**DECIMALS)
        digest.update(f"{key} {values.shape}".encode())
        for part in (exponent, digits):
            digest.update(part.astype("<i8").tobytes())
    return digest.hexdigest()[:LENGTH]


def _arrays(run: Physics) -> dict[str, np.ndarray]:
    return {key: np.asarray(rows, dtype=np.float64) for key, rows in run.values.items()}  # null becomes nan


def _drive(env: gymnasium.Env, steps: int) -> dict[str, np.ndarray]:
    """Return {key: (T, ...)} of a run that begins with the fixed reset."""
    space: Any = env.action_space
    low, high = np.clip(space.low, -1e3, 1e3), np.clip(space.high, -1e3, 1e3)
    low, high = np.where(space.low < -1e3, -1.0, low), np.where(space.high > 1e3, 1.0, high)
    phase = np.arange(low.size).reshape(low.shape)
    observation, _ = env.reset(seed=SEED)
    frames = [{**vectors(observation), "reward": np.zeros(1)}]
    drawn = any(getattr(one, "ndim", 1) >= 3 and not hasattr(one, "drawn_on_demand") for one in observation.values())
    for step in range(min(steps, DRAWN) if drawn else steps):
        action = (low + high) / 2 + 0.25 * (high - low) * np.sin(0.3 * step + phase)
        observation, reward, terminated, truncated, _ = env.step(action.astype(space.dtype))
        frames.append({**vectors(observation), "reward": np.full(1, float(reward))})
        if terminated or truncated:
            break
    return {key: np.stack([frame[key] for frame in frames]).astype(np.float64) for key in frames[0]}
