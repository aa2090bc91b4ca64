"""Trained draft models beside a checkpoint: an independent small denoiser, a correction head. `drafters.safetensors`
holds their weights, `drafters.json` their shapes and origin."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from specpolicy.errors import SpecpolicyError
from specpolicy.files import atomic_path, write_text
from specpolicy.networks import ConditionalUnet1D, UnetOptions
from specpolicy.networks.correction_head import CorrectionHead
from specpolicy.parsing import check_ranges, parse, plain, read_json
from specpolicy.parsing.quantised import in_half
from specpolicy.parsing.tensors import Unfilled, check_finite, part_of, read_tensors, without_memory

WEIGHTS, SETTINGS = "drafters.safetensors", "drafters.json"
KINDS = ("independent", "corrected")
REMEDY = "train them again (specpolicy train_drafter)"
LONGEST, WIDEST, LARGEST = 4096, 65536, 2**24


@dataclass(frozen=True)
class IndependentOptions:
    """Options of `DraftDenoiser`, as stored in a file."""

    action_dim: int
    cond_dim: int
    down_dims: Sequence[int]
    embed_dim: int = 32

    def __post_init__(self) -> None:
        check_ranges(self, action_dim=(1, WIDEST), cond_dim=(0, LARGEST))
        UnetOptions(diffusion_step_embed_dim=self.embed_dim, down_dims=self.down_dims)  # checks them


@dataclass(frozen=True)
class CorrectedOptions:
    """Options of `CorrectionHead`, as stored in a file."""

    horizon: int
    action_dim: int
    cond_dim: int
    train_steps: int
    width: int = 256

    def __post_init__(self) -> None:
        check_ranges(self, horizon=(1, LONGEST), action_dim=(1, WIDEST), cond_dim=(0, LARGEST))
        check_ranges(self, train_steps=(1, LONGEST), width=(1, WIDEST))


@dataclass(frozen=True)
class Options:
    """Options of the existing draft models."""

    independent: IndependentOptions | None = None
    corrected: CorrectedOptions | None = None


@dataclass(frozen=True)
class DraftModelsFile:
    """Contents of drafters.json; see `DraftModels`."""

    format: Literal[1]
    options: Options
    report: Mapping[str, Any]
    fingerprint: str | None = None


class DraftDenoiser(nn.Module):
    """A small U-Net with the interface and the kind of prediction of the policy's denoiser."""

    def __init__(self, action_dim: int, cond_dim: int, down_dims: list[int], embed_dim: int = 32):
        super().__init__()
        self.network = ConditionalUnet1D(
            input_dim=action_dim, global_cond_dim=cond_dim, diffusion_step_embed_dim=embed_dim, down_dims=down_dims
        )

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        """See `specpolicy.samplers.Denoiser`."""
        return self.network(x, t, None if cond is None else cond.flatten(1))


@dataclass
class DraftModels:
    """The existing draft models and their options; the `fingerprint` of the policy they were trained for."""

    denoiser: DraftDenoiser | None = None
    head: CorrectionHead | None = None
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    fingerprint: str | None = None

    def add(self, kind: str, **options: Any) -> nn.Module:
        """Build an untrained model of one of `KINDS`."""
        if kind not in KINDS:
            raise SpecpolicyError(f"unknown kind of draft model '{kind}': use one of {', '.join(KINDS)}")
        self.options[kind] = options
        if kind == "independent":
            self.denoiser = DraftDenoiser(**options)
            return self.denoiser
        self.head = CorrectionHead(**options)
        return self.head

    def models(self) -> dict[str, nn.Module]:
        """Return the existing models, by kind."""
        found = {"independent": self.denoiser, "corrected": self.head}
        return {kind: model for kind, model in found.items() if model is not None}

    def to(self, device: torch.device) -> "DraftModels":
        """Move to a device, ready for use."""
        for model in self.models().values():
            model.to(device).eval()
        return self

    def save(self, directory: str | Path) -> None:
        """Write the weights in half precision, then the settings."""
        directory = Path(directory)
        tensors = {name: in_half(value) for name, value in _weights(self).items()}
        with atomic_path(directory / WEIGHTS) as temporary:
            save_file(tensors, temporary)
        settings = {
            "format": 1,
            "options": self.options,
            "report": self.report,
            "fingerprint": self.fingerprint,
        }
        write_text(directory / SETTINGS, json.dumps(settings, indent=1) + "\n")


def read_draft_models(directory: str | Path) -> DraftModels:
    """Read the draft models beside a checkpoint; without files there are none. The caller checks whose they are."""
    directory = Path(directory)
    if not os.path.lexists(directory / SETTINGS):
        return DraftModels()
    try:
        settings = parse(DraftModelsFile, read_json(directory / SETTINGS), directory / SETTINGS)
        with without_memory():
            expected = _weights(_made(settings))
        weights = read_tensors(directory / WEIGHTS, expected)
        check_finite(weights, {}, f"{directory / WEIGHTS}: ")
    except SpecpolicyError as error:
        raise SpecpolicyError(f"the draft models in {directory} cannot be read ({error}): {REMEDY}") from None
    with Unfilled():
        models = _made(settings)
    for kind, model in models.models().items():
        model.load_state_dict(part_of(weights, f"{kind}."))
    return models.to(torch.device("cpu"))


def check_sizes(down_dims: Sequence[int], horizon: int, action_dim: int) -> None:
    """Raise a clear error if no `independent` model of these layers can draft a policy's chunks."""
    options = IndependentOptions(action_dim, 0, list(down_dims))  # checks them, whatever the policy observes
    with without_memory():
        DraftDenoiser(**plain(options)).network.check_horizon(horizon)


def _made(settings: DraftModelsFile) -> DraftModels:
    """Return untrained models as a file describes them."""
    models = DraftModels(report=dict(settings.report), fingerprint=settings.fingerprint)
    for kind in KINDS:
        options = getattr(settings.options, kind)
        if options is not None:
            models.add(kind, **plain(options))
    return models


def _weights(models: DraftModels) -> dict[str, Tensor]:
    """Return the weights of all models, each with its kind as prefix."""
    return {
        f"{kind}.{name}": value for kind, model in models.models().items() for name, value in model.state_dict().items()
    }
