"""Diffusion policies that answer in time: exact, fast sampling for robot learning."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from specpolicy.cli.from_python import benchmark, evaluate
    from specpolicy.committed import Committed
    from specpolicy.denoisers.flow import flow_denoiser
    from specpolicy.diffusion import GaussianChain
    from specpolicy.errors import SpecpolicyError
    from specpolicy.policy import DiffusionPolicy, TokenPolicy, load_policy
    from specpolicy.policy.calibrating import calibrate
    from specpolicy.sampler_names import make_sampler
    from specpolicy.samplers import Calibration, Sample, log_probs, sample

__version__ = "0.1.0"

__all__ = [
    "Calibration",
    "Committed",
    "DiffusionPolicy",
    "GaussianChain",
    "Sample",
    "SpecpolicyError",
    "TokenPolicy",
    "benchmark",
    "calibrate",
    "evaluate",
    "flow_denoiser",
    "load_policy",
    "log_probs",
    "make_sampler",
    "sample",
]

# Imported at first use (PEP 562): `specpolicy --help` and processes that only simulate need no torch.
_HOMES = {
    "Calibration": "specpolicy.samplers",
    "calibrate": "specpolicy.policy.calibrating",
    "Committed": "specpolicy.committed",
    "DiffusionPolicy": "specpolicy.policy",
    "benchmark": "specpolicy.cli.from_python",
    "evaluate": "specpolicy.cli.from_python",
    "flow_denoiser": "specpolicy.denoisers.flow",
    "GaussianChain": "specpolicy.diffusion",
    "Sample": "specpolicy.samplers",
    "SpecpolicyError": "specpolicy.errors",
    "TokenPolicy": "specpolicy.policy",
    "load_policy": "specpolicy.policy",
    "log_probs": "specpolicy.samplers",
    "make_sampler": "specpolicy.sampler_names",
    "sample": "specpolicy.samplers",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'specpolicy' has no attribute '{name}'")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
