"""`sample` and `make_sampler`: samplers by name."""

import dataclasses
import difflib
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from specpolicy.diffusion import GaussianChain
from specpolicy.errors import SpecpolicyError
from specpolicy.model import Model, device_of
from specpolicy.samplers.base import Denoiser, Generators, Sample, Sampler, Setting
from specpolicy.samplers.bound import BoundSampler
from specpolicy.samplers.dpm_solver import DPMSolver
from specpolicy.samplers.picard import Picard
from specpolicy.samplers.recycled.sampler import RecycledSampler
from specpolicy.samplers.sequential import DDIM, DDPM
from specpolicy.samplers.speculative.samplers import (
    ASD,
    BlockSampler,
    ReflectionSampler,
    ResidualSampler,
)
from specpolicy.tokens.samplers import TOKEN_SAMPLERS

SAMPLERS: dict[str, type] = {
    "ddpm": DDPM,
    "ddim": DDIM,
    "dpm_solver": DPMSolver,
    "picard": Picard,
    "asd": ASD,
    "reflection": ReflectionSampler,
    "residual": ResidualSampler,
    "block": BlockSampler,
    "recycled": RecycledSampler,
    **TOKEN_SAMPLERS,
}


def make_sampler(name: str, **options: Any) -> Sampler:
    """Make a sampler by its name, for example `make_sampler("ddim", steps=10, eta=0.0)`.

    A number behind the name is its `steps`: "ddim-10", "recycled-16". The options of each sampler, with their defaults,
    are the keys of configs/sampler/NAME.yaml; those of a speculative one also take models: `calibration`, `head`,
    `draft_denoiser`.

    Raises:
        SpecpolicyError: no such sampler or option, or a value that the option cannot have.
    """
    name, steps = split_name(name)
    if steps is not None:
        options = {"steps": steps, **options}
    if name not in SAMPLERS:
        raise SpecpolicyError(f"unknown sampler '{name}'{_hint(name, SAMPLERS)}")
    kind = SAMPLERS[name]
    known = [field.name for field in dataclasses.fields(kind) if field.name != "name"]
    for option in options:
        if option not in known:
            raise SpecpolicyError(f"sampler '{name}' has no option '{option}'{_hint(option, known)}")
    return kind(**options)


def split_name(name: str) -> tuple[str, int | None]:
    """("recycled", 16) of "recycled-16", and ("recycled", None) of "recycled"."""
    base, _, number = name.rpartition("-")
    return (base, int(number)) if base in SAMPLERS and number.isdecimal() else (name, None)


def beyond_defaults(options: Mapping[str, Any]) -> dict[str, Any]:
    """Of a sampler's options, `name` among them, those that are not its defaults."""
    kind = SAMPLERS.get(options["name"])
    usual = {} if kind is None else {field.name: field.default for field in dataclasses.fields(kind)}
    return {key: value for key, value in options.items() if key == "name" or key not in usual or value != usual[key]}


def sample(
    denoiser: Denoiser,
    chain: GaussianChain,
    shape: tuple[int, int, int],
    cond: Tensor | None = None,
    sampler: str | Sampler = "ddpm",
    generator: Generators = None,
    return_states: bool = False,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Sample:
    """Draw action chunks of `shape` (B, H, D) from a denoiser and its chain: bind the sampler, and draw once.

    cond: (B, ...) or (1, ...), which is expanded; None for an unconditional denoiser.
    generator: one for the batch, or a sequence of B, one per row.
    device: by default that of `cond`, of the denoiser's parameters, or the CPU.
    dtype: of the states, float32 or float64; in half precision the distribution would be another.

    Raises:
        SpecpolicyError: shapes that do not fit, a chain that the sampler cannot walk, a calibration of another
            network, values that are not finite.
    """
    if dtype not in (torch.float32, torch.float64):
        raise SpecpolicyError(
            f"dtype={dtype}: states are float32 or float64, in half precision the distribution is another"
        )
    sampler = make_sampler(sampler) if isinstance(sampler, str) else sampler
    if not hasattr(sampler, "bind"):
        raise SpecpolicyError(f"sampler={sampler!r}: give a name, or what specpolicy.make_sampler(name, ...) returns")
    if not isinstance(chain, GaussianChain):
        raise SpecpolicyError(
            f"chain is a {type(chain).__name__}: give a GaussianChain, of a diffusers scheduler by "
            "GaussianChain.from_diffusers(scheduler)"
        )
    if not isinstance(cond, Tensor | None):
        raise SpecpolicyError(f"cond is a {type(cond).__name__}: give a torch.Tensor, (B, ...), or None")
    if len(shape) != 3:
        raise SpecpolicyError(f"shape must be (batch, horizon, action dimension), got {tuple(shape)}")
    where = torch.device(device) if device is not None else device_of(denoiser, cond)
    setting = Setting(Model(denoiser, where), chain, torch.Size(shape[1:]), dtype=dtype)
    return BoundSampler(sampler, setting)(shape[0], cond, generator, return_states)


def _hint(word: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f": did you mean '{close[0]}'?" if close else f": use one of {', '.join(known) or '(none)'}"
