"""What is known of a policy and a machine before sampling: it makes drafts better and windows fit, never the law."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from specpolicy.diffusion import GaussianChain
from specpolicy.errors import SpecpolicyError
from specpolicy.files import atomic_path, write_text
from specpolicy.samplers.base import engine_name
from specpolicy.samplers.speculative.surrogates import GaussianSurrogate, StudentSurrogate, Surrogate

FORMAT = 2
WEIGHTS, SETTINGS = "speculation.safetensors", "speculation.json"


@dataclass(frozen=True)
class Plan:
    """How a chain of one length is drafted fastest on one machine: `windows` (K,) the most drafts from each step,
    noisiest first, the `sweeps` of drafting, with the `student` or the prior; `calls` and `seconds` a chunk takes."""

    windows: list[int]
    sweeps: int
    student: bool
    calls: float
    seconds: float


def machine(device: torch.device, denoiser: object) -> str:
    """What plans are kept for: the kind of device and the engine, as in "cpu", "cuda", "cpu-openvino"."""
    engine = engine_name(denoiser)
    return device.type if engine == "eager" else f"{device.type}-{engine}"


@dataclass
class Calibration:
    """A policy's surrogates and plans.

    prior: the linear surrogate, a Gaussian prior on chunks given the observation. student: the distilled one, or None.
    directions: (R, H*D) for extra rows, or None.
    sweeps: what takes fewest calls when a round drafts to the end. plans: by `machine` and by number of steps K.
    report: how it was made and what was measured: costs by rows, acceptance by step, calls.
    """

    prior: GaussianSurrogate
    student: StudentSurrogate | None = None
    directions: torch.Tensor | None = None
    sweeps: int = 3
    plans: dict[str, dict[int, Plan]] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)

    def surrogate(self, student: bool = True) -> Surrogate:
        """The best surrogate there is, or the linear one."""
        return self.student if student and self.student is not None else self.prior

    def plan(self, chain: GaussianChain, machine: str) -> Plan | None:
        """The plan for this machine (see `machine`), else for its kind of device, if there is one."""
        plans = self.plans.get(machine) or self.plans.get(machine.partition("-")[0], {})
        return plans.get(len(chain))

    def check(self, chain: GaussianChain, shape: torch.Size) -> None:
        """Raise if this was made for another training process or another shape of chunks."""
        alpha_bar = chain.process.alpha_bar
        own = self.prior.alpha_bar.to(alpha_bar)
        if (
            tuple(shape) != self.prior.shape
            or own.shape != alpha_bar.shape
            or not torch.allclose(own, alpha_bar, atol=1e-6)
        ):
            raise SpecpolicyError(
                f"this calibration is for chunks of shape {self.prior.shape} and {len(own)} training steps, the policy "
                f"has {tuple(shape)} and {len(alpha_bar)}: run `specpolicy calibrate` for this policy"
            )

    def save(self, directory: str | Path) -> Path:
        """Write `speculation.safetensors` (half precision) and `speculation.json` beside a checkpoint."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        parts = {"prior": self.prior} | ({} if self.student is None else {"student": self.student})
        tensors = {
            f"{name}.{key}": value.half().contiguous() if value.is_floating_point() else value.contiguous()
            for name, part in parts.items()
            for key, value in part.state_dict().items()
        }
        if self.directions is not None:
            tensors["directions"] = self.directions.half().contiguous()
        with atomic_path(directory / WEIGHTS) as temporary:
            save_file(tensors, temporary)
        settings = {
            "format": FORMAT,
            "alpha_bar": self.prior.alpha_bar.tolist(),
            "shape": list(self.prior.shape),
            "cond_dim": self.prior.cond_dim,
            "student": None if self.student is None else self.student.options,
            "sweeps": self.sweeps,
            "plans": {
                name: {str(steps): asdict(plan) for steps, plan in by_steps.items()}
                for name, by_steps in self.plans.items()
            },
            "report": self.report,
        }
        write_text(directory / SETTINGS, json.dumps(settings, indent=1) + "\n")
        return directory

    @classmethod
    def load(cls, directory: str | Path) -> "Calibration":
        """Read what `save` wrote.

        Raises:
            SpecpolicyError: there is no calibration, or it cannot be read.
        """
        directory = Path(directory)
        try:
            settings = json.loads((directory / SETTINGS).read_text(encoding="utf-8"))
            tensors = {name: value.float() for name, value in load_file(directory / WEIGHTS).items()}
            return cls._build(settings, tensors)
        except FileNotFoundError as error:
            raise SpecpolicyError(
                f"{error.filename} is missing: calibrate the policy first (specpolicy calibrate --help)"
            ) from None
        except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise SpecpolicyError(
                f"the calibration in {directory} cannot be read ({reason}): calibrate the policy again"
            ) from None

    @classmethod
    def _build(cls, settings: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> "Calibration":
        alpha_bar = torch.tensor(settings["alpha_bar"], dtype=torch.float64)
        shape, cond_dim = tuple(settings["shape"]), settings["cond_dim"]
        prior = GaussianSurrogate(alpha_bar, shape, cond_dim)
        prior.load_state_dict(_part(tensors, "prior."))
        student = None
        if settings["student"] is not None:
            # A student of format 2 may not name its blocks: it has none.
            student = StudentSurrogate(alpha_bar, shape, **{"blocks": 0, **settings["student"]})
            student.load_state_dict(_part(tensors, "student."))
            student.eval()
        plans = {
            name: {int(steps): Plan(**plan) for steps, plan in by_steps.items()}
            for name, by_steps in settings["plans"].items()
        }
        directions = tensors.get("directions")
        return cls(prior.eval(), student, directions, settings["sweeps"], plans, settings["report"])


def read_calibration(directory: str | Path) -> Calibration | None:
    """The calibration beside a checkpoint, None if there is none."""
    return Calibration.load(directory) if (Path(directory) / SETTINGS).exists() else None


def _part(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
