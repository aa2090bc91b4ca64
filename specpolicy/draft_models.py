"""Trained draft models beside a checkpoint: an independent small denoiser, a correction head. `drafters.safetensors`
holds their weights, `drafters.json` their shapes and how they were made."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from specpolicy.errors import SpecpolicyError
from specpolicy.files import atomic_path, write_text
from specpolicy.networks import ConditionalUnet1D
from specpolicy.networks.correction_head import CorrectionHead

WEIGHTS, SETTINGS = "drafters.safetensors", "drafters.json"
KINDS = ("independent", "corrected")


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
    """What is there, and the options each was built with."""

    denoiser: DraftDenoiser | None = None
    head: CorrectionHead | None = None
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)

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
        """Those that are there, by kind."""
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
        tensors = {
            f"{kind}.{name}": value.half().contiguous() if value.is_floating_point() else value.contiguous()
            for kind, model in self.models().items()
            for name, value in model.state_dict().items()
        }
        with atomic_path(directory / WEIGHTS) as temporary:
            save_file(tensors, temporary)
        settings = {"format": 1, "options": self.options, "report": self.report}
        write_text(directory / SETTINGS, json.dumps(settings, indent=1) + "\n")


def read_draft_models(directory: str | Path) -> DraftModels:
    """The draft models beside a checkpoint; none of them where there are no files."""
    directory, models = Path(directory), DraftModels()
    if not (directory / SETTINGS).exists():
        return models
    try:
        settings = json.loads((directory / SETTINGS).read_text(encoding="utf-8"))
        weights = load_file(directory / WEIGHTS)
        for kind, options in settings["options"].items():
            model = models.add(kind, **options)
            prefix = f"{kind}."
            own = {
                name.removeprefix(prefix): value.float() for name, value in weights.items() if name.startswith(prefix)
            }
            model.load_state_dict(own)
        models.report = settings["report"]
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise SpecpolicyError(f"the draft models in {directory} cannot be read ({reason}): train them again") from None
    return models.to(torch.device("cpu"))
