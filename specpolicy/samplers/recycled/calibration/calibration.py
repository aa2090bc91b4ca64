"""Per-policy, per-backend tuning data of `recycled`: affects speed, never the distribution."""

import json
import os
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file

from specpolicy.diffusion import GaussianChain
from specpolicy.errors import SpecpolicyError
from specpolicy.files import atomic_path, write_text
from specpolicy.fingerprints import check_made_for, weights_fingerprint
from specpolicy.model import network_of
from specpolicy.parsing import check_ranges, parse, read_json
from specpolicy.parsing.quantised import in_half, quantised, read_quantised
from specpolicy.parsing.tensors import Unfilled, check_finite, part_of, read_layout, without_memory
from specpolicy.samplers.recycled.surrogates import GaussianSurrogate, StudentSurrogate, Surrogate

FORMAT = 3  # before that, no matrix was quantised
WEIGHTS, SETTINGS = "speculation.safetensors", "speculation.json"
PRECISE = "linear_mean."  # weights of the student that set the mean of its prior, as no later layer corrects them
REMEDY = "run `specpolicy calibrate` for this policy"
LONGEST, WIDEST, LARGEST = 4096, 65536, 2**24  # bounds on steps and horizons, layers, conditions: beyond any use
SWEEPS = 1000


@dataclass(frozen=True)
class Plan:
    """The fastest way to draft a chain of one length on one machine.

    `windows` (K,): the most drafts from each step, noisiest first. `sweeps`: of drafting. `student`: draft with the
    student, else with the prior. `calls` and `seconds`: cost of a chunk.
    """

    windows: Sequence[int]
    sweeps: int
    student: bool
    calls: float
    seconds: float

    def __post_init__(self) -> None:
        check_ranges(self, windows=(1, LONGEST), sweeps=(1, SWEEPS), calls=(0, 1e9), seconds=(0, 1e9))


@dataclass(frozen=True)
class StudentOptions:
    """Sizes of `StudentSurrogate`, as stored in a file."""

    cond_dim: int
    width: int
    context: int
    hidden: int
    observation: int = 512
    blocks: int = 0  # a student of format 2 may not name its blocks: it has none

    def __post_init__(self) -> None:
        sizes = {name: (1, WIDEST) for name in ("width", "context", "hidden", "observation")}
        check_ranges(self, cond_dim=(0, LARGEST), blocks=(0, 256), **sizes)


@dataclass(frozen=True)
class CalibrationFile:
    """Contents of speculation.json; see `Calibration`. `fingerprint`: of the policy it was made for."""

    format: Literal[2, 3]
    alpha_bar: Sequence[float]
    shape: tuple[int, int]
    cond_dim: int
    student: StudentOptions | None
    sweeps: int
    plans: Mapping[str, Mapping[int, Plan]]
    report: Mapping[str, Any]
    fingerprint: str | None = None

    def __post_init__(self) -> None:
        check_ranges(self, alpha_bar=(0, 1), shape=(1, LONGEST), cond_dim=(0, LARGEST), sweeps=(1, SWEEPS))
        if not 1 <= len(self.alpha_bar) <= LONGEST:
            raise SpecpolicyError(f"alpha_bar has {len(self.alpha_bar)} steps: it must have 1 to {LONGEST}")
        for backend, plans in self.plans.items():
            for steps, plan in plans.items():
                if len(plan.windows) != steps:
                    raise SpecpolicyError(
                        f"plans.{backend}.{steps} has {len(plan.windows)} windows: it must have one for each step"
                    )

    def surrogates(self) -> dict[str, GaussianSurrogate | StudentSurrogate]:
        """Untrained surrogates, by the prefix of their weights' names."""
        alpha_bar = torch.tensor(self.alpha_bar, dtype=torch.float64, device="cpu")
        made: dict[str, Any] = {"prior": GaussianSurrogate(alpha_bar, self.shape, self.cond_dim)}
        if self.student is not None:
            made["student"] = StudentSurrogate(alpha_bar, self.shape, **asdict(self.student))
        return made


@dataclass
class Calibration:
    """A policy's surrogates and plans.

    Attributes:
        prior: the linear surrogate, a Gaussian prior on chunks given the observation.
        student: the distilled one, or None.
        sweeps: the number with the fewest calls when a round drafts to the end.
        plans: by backend (see `specpolicy.model.backend_name`) and by number of steps K.
        report: its origin and measurements: costs by rows, acceptance by step, calls.
        fingerprint: of the policy it was made for (see `specpolicy.fingerprints`); None if unknown, as for a denoiser
            that is a function.
    """

    prior: GaussianSurrogate = field(repr=False)
    student: StudentSurrogate | None = field(default=None, repr=False)
    sweeps: int = 3
    plans: dict[str, dict[int, Plan]] = field(default_factory=dict, repr=False)
    report: dict[str, Any] = field(default_factory=dict, repr=False)
    fingerprint: str | None = None
    _checked: "weakref.WeakSet[torch.nn.Module]" = field(
        default_factory=weakref.WeakSet, init=False, repr=False, compare=False
    )

    def __getstate__(self) -> dict[str, Any]:
        """Drop the record of checked networks: a copy, also in another process, checks its own."""
        return {name: value for name, value in vars(self).items() if name != "_checked"}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state, _checked=weakref.WeakSet())

    def check_network(self, denoiser: object) -> None:
        """Raise if this was made for another network than the one behind `denoiser`, as far as both are known.

        A network is checked once, not for every chunk, because a check costs as much as some calls.
        """
        network = network_of(denoiser)
        if self.fingerprint is None or network is None or network in self._checked:
            return
        check_made_for(self.fingerprint, weights_fingerprint(network), "this calibration", REMEDY)
        self._checked.add(network)

    def surrogate(self, student: bool = True) -> Surrogate:
        """Return the best surrogate, or the linear one with `student=False`."""
        return self.student if student and self.student is not None else self.prior

    def plan(self, chain: GaussianChain, backend: str) -> Plan | None:
        """Return the plan for a backend, else for its kind of device, else None."""
        plans = self.plans.get(backend) or self.plans.get(backend.partition("-")[0], {})
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
        """Write `speculation.safetensors` and `speculation.json` beside a checkpoint.

        The student's large matrices are quantised (`specpolicy.parsing.quantised`), all else is in half precision.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        parts = {"prior": self.prior} | ({} if self.student is None else {"student": self.student})
        tensors: dict[str, torch.Tensor] = {}
        for name, part in parts.items():
            learnt = dict(part.named_parameters()) if name == "student" else {}
            for key, value in part.state_dict().items():
                coarse = key in learnt and not key.startswith(PRECISE)
                tensors |= quantised(f"{name}.{key}", value) if coarse else {f"{name}.{key}": in_half(value)}
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
            "fingerprint": self.fingerprint,
        }
        write_text(directory / SETTINGS, json.dumps(settings, indent=1) + "\n")
        return directory

    @classmethod
    def load(cls, directory: str | Path) -> "Calibration":
        """Read the files that `save` wrote.

        Raises:
            SpecpolicyError: there is no calibration, or it cannot be read.
        """
        directory = Path(directory)
        for name in (SETTINGS, WEIGHTS):
            if not (directory / name).exists():
                raise SpecpolicyError(
                    f"{directory / name} is missing: calibrate the policy first (specpolicy calibrate --help)"
                )
        try:
            settings = parse(CalibrationFile, read_json(directory / SETTINGS), directory / SETTINGS)
            tensors = _read_weights(directory / WEIGHTS, settings)
        except SpecpolicyError as error:
            raise SpecpolicyError(f"{error}: calibrate the policy again") from None
        with Unfilled():
            parts: dict[str, Any] = settings.surrogates()
        for name, part in parts.items():
            part.load_state_dict(part_of(tensors, f"{name}."))
            part.eval()
        plans = {
            backend: {steps: replace(plan, windows=list(plan.windows)) for steps, plan in by_steps.items()}
            for backend, by_steps in settings.plans.items()
        }
        return cls(
            parts["prior"],
            parts.get("student"),
            settings.sweeps,
            plans,
            dict(settings.report),
            settings.fingerprint,
        )


def read_calibration(directory: str | Path) -> Calibration | None:
    """Return the calibration beside a checkpoint, None if there is none. The caller checks whose it is."""
    return Calibration.load(directory) if os.path.lexists(Path(directory) / SETTINGS) else None


def _read_weights(path: Path, settings: CalibrationFile) -> dict[str, torch.Tensor]:
    """Read the tensors of speculation.safetensors, after comparing their names and shapes with the settings."""
    with without_memory():
        parts = settings.surrogates()
    expected = {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}
    _, directions = read_layout(path).get("directions", ("", ()))
    if directions:  # older files have these; nothing uses them any more, and there may be any number of them
        size = settings.shape[0] * settings.shape[1]
        expected["directions"] = torch.empty(min(directions[0], size), size, device="meta")
    tensors = read_quantised(path, expected)
    check_finite(tensors, {}, f"{path}: ")
    tensors.pop("directions", None)
    return tensors
