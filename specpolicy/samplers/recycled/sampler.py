"""This project's sampler, `recycled`: what it is drafted with, settled once."""

import functools
from dataclasses import dataclass
from typing import Literal

import torch

from specpolicy.diffusion import GaussianChain
from specpolicy.samplers.base import Denoiser
from specpolicy.samplers.recycled.calibration.calibration import Calibration, machine
from specpolicy.samplers.recycled.drafter import Recycled
from specpolicy.samplers.recycled.single import RecycledSingle, TorchSurrogate
from specpolicy.samplers.recycled.surrogates import GaussianSurrogate, Surrogate
from specpolicy.samplers.speculative.loop import Lengths
from specpolicy.samplers.speculative.samplers import Speculation, Speculative
from specpolicy.samplers.speculative.verifiers import Reflection


@dataclass(frozen=True)
class RecycledSampler(Speculative):
    """This project's sampler: recycled evaluations, carried by a surrogate of the network, verified by reflection.

    calibration: see `specpolicy.calibrate`; without one, a prior that knows only that chunks are smooth serves.
    calibrated: False does without one also where a policy has it.
    student: False uses the calibration's linear surrogate; None: as calibrated. sweeps: of drafting, see `Recycled`.
    rejoin: lead drafted paths back onto earlier ones, see `Rejoin`: fewer calls of fewer rows. None: on a CPU only, for
    elsewhere each sweep then waits for the device.
    window: "calibrated", the default, is the fastest for the chain's length and this kind of machine, as calibrated.
    """

    window: Lengths | Literal["calibrated"] = "calibrated"  # type: ignore[assignment]
    calibration: Calibration | None = None
    calibrated: bool = True
    student: bool | None = None
    sweeps: int | None = None
    rejoin: bool | None = None
    name: str = "recycled"
    verifier = Reflection

    @property
    def wants_calibration(self) -> bool:
        """Whether a policy's calibration is to be used."""
        return self.calibrated and self.calibration is None

    def prepare(self, denoiser: Denoiser, chain: GaussianChain, shape: torch.Size, device: torch.device) -> Speculation:
        """See `Speculative.prepare`."""
        chain = self.target(chain)
        surrogate, sweeps, window = self._drafting(chain, shape, machine(device, denoiser))
        rejoin = self.rejoins(device)
        drafter = Recycled(surrogate, sweeps, rejoin)
        single = None
        if device.type == "cpu":
            single = RecycledSingle(TorchSurrogate(surrogate.placed(device, torch.float32), chain), sweeps, rejoin)
        return Speculation(denoiser, chain, drafter, Reflection(), window, single)

    def rejoins(self, device: torch.device) -> bool:
        """Whether paths rejoin those before on such a device."""
        return device.type == "cpu" if self.rejoin is None else self.rejoin

    def _drafting(self, chain: GaussianChain, shape: torch.Size, machine: str) -> tuple[Surrogate, int, Lengths]:
        """Surrogate, sweeps and windows: as the options say, else as calibrated for this machine, else as calibrated.

        Raises:
            SpecpolicyError: a calibration for another policy.
        """
        window = None if self.window == "calibrated" else self.window
        if self.calibration is None:
            # One sweep: what knows only smoothness is best trusted for one small correction.
            return _smooth(tuple(chain.process.alpha_bar.tolist()), tuple(shape)), self.sweeps or 1, window
        self.calibration.check(chain, shape)
        plan = self.calibration.plan(chain, machine)
        if plan is None or self.window != "calibrated":
            student = self.student is not False
            return self.calibration.surrogate(student), self.sweeps or self.calibration.sweeps, window
        student = plan.student if self.student is None else self.student
        return self.calibration.surrogate(student), self.sweeps or plan.sweeps, plan.windows


@functools.lru_cache(maxsize=8)
def _smooth(alpha_bar: tuple[float, ...], shape: tuple[int, int]) -> GaussianSurrogate:
    """The prior of one who knows nothing of a policy, made once."""
    with torch.inference_mode(False):
        return GaussianSurrogate.smooth(torch.tensor(alpha_bar, dtype=torch.float64), torch.Size(shape))
