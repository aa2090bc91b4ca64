"""All samplers by name: those of diffusion policies, and the decoders of token policies."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from specpolicy.parsing.named import make_named, split_steps
from specpolicy.samplers import Sampler
from specpolicy.samplers.registry import SAMPLERS
from specpolicy.tokens.samplers import DECODERS, TokenSampler

AnySampler = Sampler | TokenSampler
BY_NAME: dict[str, type] = {**SAMPLERS, **DECODERS}


def make_sampler(name: str, **options: Any) -> AnySampler:
    """Make a sampler by its name, for example `make_sampler("ddim", steps=10, eta=0.0)`.

    A number at the end of the name is its `steps`: "ddim-10", "recycled-16". The options of each sampler, with their
    defaults, are the keys of configs/sampler/NAME.yaml. Those of a speculative one also take models: `calibration`,
    `head`, `draft_denoiser`. A policy lists its samplers in `Policy.sampler_kinds`.

    Raises:
        SpecpolicyError: no such sampler or option, or a value that the option cannot have.
    """
    made: AnySampler = make_named("sampler", BY_NAME, name, options)
    return made


def split_name(name: str) -> tuple[str, int | None]:
    """Split "recycled-16" into ("recycled", 16), and "recycled" into ("recycled", None)."""
    return split_steps(BY_NAME, name)


def option_defaults(name: str) -> dict[str, Any]:
    """Return the options of a sampler with their defaults; none for an unknown name."""
    kind = BY_NAME.get(name)
    return {} if kind is None else {field.name: field.default for field in dataclasses.fields(kind)}


def beyond_defaults(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a sampler's options, `name` among them, that differ from the defaults."""
    usual = option_defaults(options["name"])
    return {key: value for key, value in options.items() if key == "name" or key not in usual or value != usual[key]}
