"""This project's sampler, `recycled`, and how its parts are chosen when it is bound."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from specpolicy.errors import SpecpolicyError
from specpolicy.samplers.base import Setting
from specpolicy.samplers.options import check_amounts, check_counts, check_switches, check_window
from specpolicy.samplers.recycled.calibration.calibration import Calibration
from specpolicy.samplers.recycled.drafter import RecycledDrafter
from specpolicy.samplers.recycled.fixed import RecycledFixed
from specpolicy.samplers.recycled.single import HostSurrogate, RecycledSingle, TorchSurrogate
from specpolicy.samplers.recycled.surrogates import GaussianSurrogate, Surrogate
from specpolicy.samplers.recycled.surrogates.continued import ContinuedHostSurrogate, ContinuedSurrogate
from specpolicy.samplers.speculative.loop import Lengths
from specpolicy.samplers.speculative.samplers import Speculation, Speculative
from specpolicy.samplers.speculative.verifiers import Reflection


@dataclass(frozen=True)
class Recycled(Speculative):
    """This project's sampler: recycled evaluations, carried by a surrogate of the network, verified by reflection.

    Attributes:
        window: most drafts in a round, as in `Speculative`; "calibrated", the default: the fastest for the chain's
            length and this kind of machine.
        calibration: see `specpolicy.calibrate`; None: the policy's. Without one, a prior serves that knows only that
            chunks are smooth.
        calibrated: False ignores the policy's calibration.
        student: False uses the calibration's linear surrogate; None: as calibrated.
        sweeps: of drafting, see `RecycledDrafter`.
        rejoin: lead drafted paths back onto earlier ones, see `Rejoin`: fewer calls of fewer rows. None: on a CPU only,
            because elsewhere each sweep would wait for the device.
    """

    name: ClassVar[str] = "recycled"
    verifier = Reflection

    window: Lengths | Literal["calibrated"] = "calibrated"  # type: ignore[assignment]
    calibration: Calibration | None = None
    calibrated: bool = True
    student: bool | None = None
    sweeps: int | None = None
    rejoin: bool | None = None

    def __post_init__(self) -> None:
        check_window(self, also=("calibrated",))
        check_counts(self, "steps", "sweeps")
        check_amounts(self, "eta", optional=True)
        check_switches(self, "student", "calibrated", "rejoin")
        if not isinstance(self.calibration, Calibration | None):
            raise SpecpolicyError(
                f"option 'calibration' of sampler 'recycled' is no Calibration but {type(self.calibration).__name__}: "
                "give what specpolicy.calibrate returns, or specpolicy.Calibration.load(directory)"
            )

    def calibration_in(self, setting: Setting) -> Calibration | None:
        """Return the calibration to use in a setting: its own, else the policy's, or None if `calibrated` is False."""
        return setting.calibration if self.calibrated and self.calibration is None else self.calibration

    def learnt(self, setting: Setting, backend: str) -> Iterator[Any]:
        """See `Sampler.learnt`."""
        calibration = self.calibration_in(setting)
        if calibration is None:
            return
        yield from ("sweeps", calibration.sweeps, calibration.prior)
        if calibration.student is not None and self.student is not False:
            yield from ("student", calibration.student)
        plan = calibration.plan(self.target(setting.chain), backend) if self.window == "calibrated" else None
        if plan is not None:
            yield from ("plan", plan.windows, plan.sweeps, plan.student)

    def rejoins(self, device: torch.device) -> bool:
        """Whether paths rejoin earlier ones on a device."""
        return device.type == "cpu" if self.rejoin is None else self.rejoin

    def bind(self, setting: Setting) -> Speculation:
        """See `Sampler.bind`."""
        chain, device = self.target(setting.chain), setting.device
        surrogate, sweeps, window = self._drafting(setting)
        rejoin, capture, single, fixed = self.rejoins(device), setting.model.capture, None, None
        told = setting.continuation
        outer: Surrogate = surrogate if told is None else ContinuedSurrogate(surrogate, told)
        if capture is not None and not rejoin:
            fixed = RecycledFixed(outer.placed(device, setting.dtype), sweeps)
        elif device.type == "cpu":
            placed = surrogate.placed(device, torch.float32)
            host: HostSurrogate = TorchSurrogate(placed, chain, setting.model.denoiser)
            host = host if told is None else ContinuedHostSurrogate(host, told, chain)
            single = RecycledSingle(host, sweeps, rejoin)
        drafter = RecycledDrafter(outer, sweeps, rejoin)
        return Speculation(chain, drafter, Reflection(), window, single, fixed, capture)

    def _drafting(self, setting: Setting) -> tuple[Surrogate, int, Lengths]:
        """Return surrogate, sweeps and draft lengths: from the options, else as calibrated for this backend, else as
        calibrated.

        Raises:
            SpecpolicyError: a calibration for another policy.
        """
        chain, calibration = self.target(setting.chain), self.calibration_in(setting)
        window = None if self.window == "calibrated" else self.window
        if calibration is None:
            # One sweep: a prior that knows only smoothness is best trusted for one small correction.
            return _smooth(tuple(chain.process.alpha_bar.tolist()), tuple(setting.shape)), self.sweeps or 1, window
        calibration.check(chain, setting.shape)
        calibration.check_network(setting.model.network)
        plan = calibration.plan(chain, setting.backend)
        if plan is None or self.window != "calibrated":
            return calibration.surrogate(self.student is not False), self.sweeps or calibration.sweeps, window
        student = plan.student if self.student is None else self.student
        return calibration.surrogate(student), self.sweeps or plan.sweeps, plan.windows


@functools.lru_cache(maxsize=8)
def _smooth(alpha_bar: tuple[float, ...], shape: tuple[int, int]) -> GaussianSurrogate:
    """Return the prior for an unknown policy, made once."""
    with torch.inference_mode(False):
        return GaussianSurrogate.smooth(torch.tensor(alpha_bar, dtype=torch.float64), torch.Size(shape))
