"""How a LeRobot policy normalises: current versions say it in processor files, earlier ones among the weights."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from specpolicy.errors import SpecpolicyError
from specpolicy.integrations.names import below

ACTION = "action"
EPSILON = 1e-8
# What the modes need: the statistics that become -1 and 1.
RANGES = {"MIN_MAX": ("min", "max"), "QUANTILES": ("q01", "q99"), "QUANTILE10": ("q10", "q90")}
MODES = {"VISUAL": "MEAN_STD", "STATE": "MIN_MAX", "ACTION": "MIN_MAX"}  # LeRobot's own for diffusion policies


@dataclass
class Normalisation:
    """Statistics by key, modes by the type of a feature.

    Attributes:
        where: the directory, for errors.
        statistics: {key: {"min": ..., "max": ..., ...}}; a key that is missing has none.
        modes: {type: mode}; a type that is missing is not normalised.
        modes_by_key: the first versions gave modes by key instead.
        epsilon: what keeps divisions from zero.
        legacy: epsilon is added to every range, and every normalised feature has statistics; else it only replaces
            a range of zero, and features without statistics pass as they are.
        only: observations that are normalised at all, if the processor names them.
    """

    where: Path
    statistics: Mapping[str, Mapping[str, Tensor]]
    modes: Mapping[str, str]
    modes_by_key: Mapping[str, str] = field(default_factory=dict)
    epsilon: float = EPSILON
    legacy: bool = False
    only: list[str] | None = None

    def entry(self, key: str, kind: str, shape: list[int]) -> dict[str, Any]:
        """The entry of our normaliser for one feature of that type and shape."""
        found = self.statistics.get(key)
        mode = self.modes_by_key.get(key, "IDENTITY").upper() if self.modes_by_key else self.modes.get(kind, "IDENTITY")
        excluded = self.only is not None and key != ACTION and key not in self.only
        if mode == "IDENTITY" or excluded or (found is None and not self.legacy):
            size = [1] * len(shape) if len(shape) == 3 else shape
            return _entry(torch.ones(size), 0.0, torch.zeros(size))
        names = ("mean", "std") if mode == "MEAN_STD" else RANGES.get(mode)
        if names is None:
            raise SpecpolicyError(f"{self.where}: the normalisation mode '{mode}' of '{key}' is not supported")
        if found is None or not set(names) <= found.keys():
            raise SpecpolicyError(f"{self.where} lacks the statistics {' and '.join(names)} of '{key}'")
        low, high = (found[name].double() for name in names)
        if not (torch.isfinite(low).all() and torch.isfinite(high).all()):
            raise SpecpolicyError(f"{self.where}: the statistics of '{key}' were never set")
        if len(shape) == 3:
            low, high = low.reshape(-1, 1, 1), high.reshape(-1, 1, 1)
        if mode == "MEAN_STD":
            return _entry(1 / (high + self.epsilon), 0.0, low)
        span = high - low
        span = span + self.epsilon if self.legacy else torch.where(span == 0, self.epsilon, span)
        return _entry(2 / span, -1.0, low)


@dataclass(frozen=True)
class Normalisations:
    """Those of the observations and of the actions, which have a processor each."""

    observations: Normalisation
    actions: Normalisation

    def entry(self, key: str, kind: str, shape: list[int]) -> dict[str, Any]:
        """See `Normalisation.entry`."""
        return (self.actions if key == ACTION else self.observations).entry(key, kind, shape)


def read_normalisation(directory: Path, weights: Mapping[str, Tensor], config: Mapping[str, Any]) -> Normalisations:
    """The normalisation of a policy directory with those weights and that config.json."""
    before = directory / "policy_preprocessor.json"
    if before.exists():
        after = directory / "policy_postprocessor.json"
        return Normalisations(_processor(before, "normalizer_processor"), _processor(after, "unnormalizer_processor"))
    modes_by_key = {
        **(config.get("input_normalization_modes") or {}),
        **(config.get("output_normalization_modes") or {}),
    }
    modes = config.get("normalization_mapping") or MODES
    return Normalisations(
        *(
            Normalisation(directory, _among(weights, module, config), modes, modes_by_key, legacy=True)
            for module in ("normalize_inputs", "unnormalize_outputs")
        )
    )


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        SpecpolicyError: no such file, or a damaged one.
    """
    try:
        return load_file(path)
    except FileNotFoundError:
        raise SpecpolicyError(f"{path.parent} has no {path.name}: the checkpoint is incomplete") from None
    except SafetensorError as error:
        raise SpecpolicyError(f"{path} cannot be read ({error}): copy the checkpoint again") from None


def _processor(path: Path, name: str) -> Normalisation:
    """The normalising step of a processor."""
    try:
        steps = json.loads(path.read_text(encoding="utf-8"))["steps"]
        step = next(step for step in steps if step.get("registry_name") == name)
        config, file = step["config"], step.get("state_file")
        modes = dict(config["norm_map"])
    except FileNotFoundError:
        raise SpecpolicyError(f"{path.parent} has no {path.name}: the checkpoint is incomplete") from None
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration):
        raise SpecpolicyError(f"{path} is not understood: a step '{name}' with its settings is expected") from None
    statistics: dict[str, dict[str, Tensor]] = {}
    for full, value in (load_tensors(path.parent / file) if file else {}).items():
        key, _, statistic = full.rpartition(".")
        statistics.setdefault(key, {})[statistic] = value
    return Normalisation(
        path.parent,
        statistics,
        modes,
        epsilon=config.get("eps", EPSILON),
        only=config.get("normalize_observation_keys"),
    )


def _among(weights: Mapping[str, Tensor], module: str, config: Mapping[str, Any]) -> dict[str, dict[str, Tensor]]:
    """Statistics that stand among the weights; the dots of a key are underscores there."""
    sides = (config.get(f"{side}_{what}") or {} for side in ("input", "output") for what in ("features", "shapes"))
    keys = [key for side in sides for key in side]
    found = {key: below(weights, f"{module}.buffer_{key.replace('.', '_')}.") for key in keys}
    return {key: statistics for key, statistics in found.items() if statistics}


def _entry(scale: Tensor, offset: float, shift: Tensor) -> dict[str, Any]:
    return {"scale": scale.tolist(), "offset": torch.full_like(scale, offset).tolist(), "shift": shift.tolist()}
