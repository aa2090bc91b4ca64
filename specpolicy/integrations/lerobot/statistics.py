"""Normalisation of a LeRobot policy: current versions store it in processor files, earlier ones among the weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from specpolicy.errors import SpecpolicyError
from specpolicy.integrations.lerobot.processors import AFTER, BEFORE, EPSILON, Processor, read_processor
from specpolicy.integrations.lerobot.settings import ACTION, DiffusionConfig, Feature
from specpolicy.integrations.names import below
from specpolicy.parsing.tensors import read_tensors

# Statistics of each mode that become -1 and 1.
RANGES = {"MIN_MAX": ("min", "max"), "QUANTILES": ("q01", "q99"), "QUANTILE10": ("q10", "q90")}
MODES = {"VISUAL": "MEAN_STD", "STATE": "MIN_MAX", "ACTION": "MIN_MAX"}  # LeRobot's own for diffusion policies
BUFFERS = ("normalize_inputs", "normalize_targets", "unnormalize_outputs")  # modules of versions before 0.4


@dataclass(frozen=True)
class Normalisation:
    """Statistics by key, modes by the type of a feature.

    Attributes:
        where: the file, or the directory of the weights, for errors.
        statistics: {key: {"min": ..., "max": ..., ...}}; a missing key has none.
        modes: {type: mode}; a missing type is not normalised.
        modes_by_key: the first versions gave modes by key instead.
        epsilon: keeps divisions from zero.
        legacy: every normalised feature has statistics, and epsilon is added to every range. Otherwise it only replaces
            a range of zero, and features without statistics pass unchanged.
        features: those that a processor knows; others pass unchanged. None: all.
        only: observations that are normalised at all, if the processor names them.
    """

    where: Path
    statistics: Mapping[str, Mapping[str, Tensor]]
    modes: Mapping[Any, str]
    modes_by_key: Mapping[str, str] = field(default_factory=dict)
    epsilon: float = EPSILON
    legacy: bool = False
    features: Mapping[str, Feature] | None = None
    only: tuple[str, ...] | None = None

    def entry(self, key: str, feature: Feature) -> dict[str, Any]:
        """Return the entry of our normaliser for one feature."""
        shape = list(feature.shape)
        found, mode = self.statistics.get(key), self._mode(key, feature)
        if mode == "IDENTITY" or (found is None and not self.legacy):
            size = [1] * len(shape) if len(shape) == 3 else shape
            return _entry(torch.ones(size), 0.0, torch.zeros(size))
        names = ("mean", "std") if mode == "MEAN_STD" else RANGES.get(mode)
        if names is None:
            raise SpecpolicyError(f"{self.where}: the normalisation mode '{mode}' of '{key}' is not supported")
        if found is None or not set(names) <= found.keys():
            where = f"{self.where}{missing(self.where)}: it" if self.legacy and not self.statistics else self.where
            raise SpecpolicyError(f"{where} lacks the statistics {' and '.join(names)} of '{key}'")
        # LeRobot's statistics are float32, and so are the widths that it makes of them.
        low, high = (self._statistic(found[name], name, key, shape).float() for name in names)
        if mode == "MEAN_STD":
            if key == ACTION:  # LeRobot multiplies by the deviation alone
                return _entry(1 / torch.where(high == 0, EPSILON, high).double(), 0.0, low)
            return _entry(1 / (high + self.epsilon).double(), 0.0, low)
        span = high - low
        span = span + self.epsilon if self.legacy else torch.where(span == 0, self.epsilon, span)
        return _entry(2 / span.double(), -1.0, low)

    def _mode(self, key: str, feature: Feature) -> str:
        if self.modes_by_key:
            return self.modes_by_key.get(key, "IDENTITY").upper()
        if key == ACTION:
            return self.modes.get("ACTION", "IDENTITY")
        if self.features is not None:
            known = self.features.get(key)
            if known is None or known.type == "ACTION" or (self.only is not None and key not in self.only):
                return "IDENTITY"
            feature = known
        return self.modes.get(feature.type, "IDENTITY")

    def _statistic(self, value: Tensor, name: str, key: str, shape: list[int]) -> Tensor:
        """Return one statistic in float64, of a vector's size or an image's number of channels."""
        if value.numel() not in (1, shape[0]) or not value.is_floating_point():
            raise SpecpolicyError(
                f"{self.where}: the statistic {name} of '{key}' has {value.numel()} numbers ({value.dtype}), "
                f"the feature {shape[0]}"
            )
        value = value.double().flatten()
        if not bool(torch.isfinite(value).all()):
            raise SpecpolicyError(f"{self.where}: the statistics of '{key}' were never set")
        return value.reshape(-1, 1, 1) if len(shape) == 3 else value.expand(shape[0])


@dataclass(frozen=True)
class Normalisations:
    """Normalisation of the observations and of the actions, which have a processor each."""

    observations: Normalisation
    actions: Normalisation
    before: Processor | None = None

    def entry(self, key: str, feature: Feature) -> dict[str, Any]:
        """See `Normalisation.entry`."""
        return (self.actions if key == ACTION else self.observations).entry(key, feature)

    def outer_name(self, key: str) -> str:
        """Return the name of an observation before processors rename it."""
        return key if self.before is None else self.before.outer_name(key)

    @property
    def text_length(self) -> int | None:
        """Number of tokens that a text becomes; None if no processor makes tokens."""
        return None if self.before is None or self.before.tokenise is None else self.before.tokenise.max_length


def read_normalisation(directory: Path, weights: Mapping[str, Tensor], config: DiffusionConfig) -> Normalisations:
    """Return the normalisation of a policy directory with those weights and that config.json."""
    found = read_processors(directory)
    if found is not None:
        return found
    paths = directory / BEFORE, directory / AFTER
    if paths[0].exists():
        raise SpecpolicyError(f"{directory}{missing(directory)}")
    modes_by_key = {**(config.input_normalization_modes or {}), **(config.output_normalization_modes or {})}
    modes = MODES if config.normalization_mapping is None else config.normalization_mapping
    keys = [*config.features("input"), *config.features("output")]
    before, after = (
        Normalisation(directory, _among(weights, module, keys), modes, modes_by_key, legacy=True)
        for module in ("normalize_inputs", "unnormalize_outputs")
    )
    if paths[1].exists():
        for key, feature in config.features("input").items():
            before.entry(key, feature)  # reports missing statistics
        raise SpecpolicyError(f"{directory}{missing(directory)}")
    return Normalisations(before, after)


def read_processors(directory: Path, language: bool = False) -> Normalisations | None:
    """Return the normalisation of the two processor files; None if one of them is missing, or both. `language`: see
    `read_processor`."""
    paths = directory / BEFORE, directory / AFTER
    if not all(path.exists() for path in paths):
        return None
    first, last = (read_processor(path, language) for path in paths)
    return Normalisations(_of(first, paths[0]), _of(last, paths[1]), first)


def missing(directory: Path) -> str:
    """Name the missing processor files and how LeRobot writes them."""
    absent = " and no ".join(name for name in (BEFORE, AFTER) if not (directory / name).exists())
    return (
        f" has no {absent} (nor statistics among its weights, as before LeRobot 0.4): lerobot-train writes both with "
        "their .safetensors beside model.safetensors, and push_to_hub uploads them, so copy them from there, or let "
        "LeRobot write them again by make_pre_post_processors(config, dataset_stats=...) and save_pretrained of both, "
        "for weights from before 0.4 by python -m lerobot.processor.migrate_policy_normalization --pretrained-path DIR"
    )


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file.

    Raises:
        SpecpolicyError: no such file, or a damaged one.
    """
    if not path.exists():
        raise SpecpolicyError(f"{path.parent} has no {path.name}: the checkpoint is incomplete")
    return read_tensors(path, remedy="copy the checkpoint again")


def _of(processor: Processor, path: Path) -> Normalisation:
    """Return the normalisation of a processor file, with its statistics."""
    settings = processor.normalise
    statistics: dict[str, dict[str, Tensor]] = {}
    for full, value in ({} if processor.state_file is None else load_tensors(processor.state_file)).items():
        key, _, statistic = full.rpartition(".")
        statistics.setdefault(key, {})[statistic] = value
    only = settings.normalize_observation_keys
    return Normalisation(
        path,
        statistics,
        settings.norm_map,
        epsilon=settings.eps,
        features=settings.features,
        only=None if only is None else tuple(only),
    )


def _among(weights: Mapping[str, Tensor], module: str, keys: list[str]) -> dict[str, dict[str, Tensor]]:
    """Return statistics stored among the weights, where underscores replace the dots of a key."""
    found = {key: below(weights, f"{module}.buffer_{key.replace('.', '_')}.") for key in keys}
    return {key: statistics for key, statistics in found.items() if statistics}


def _entry(scale: Tensor, offset: float, shift: Tensor) -> dict[str, Any]:
    return {"scale": scale.tolist(), "offset": torch.full_like(scale, offset).tolist(), "shift": shift.tolist()}
