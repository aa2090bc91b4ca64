"""What all policies share, however they make their actions."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from specpolicy.checkpoints import write_checkpoint
from specpolicy.errors import SpecpolicyError
from specpolicy.fingerprints import policy_fingerprint
from specpolicy.images import is_image, unit_images
from specpolicy.networks import LowDimEncoder
from specpolicy.normaliser import Normaliser
from specpolicy.parsing.tensors import check_finite, check_layout, layout_of, part_of, prefixed
from specpolicy.policy_config import PolicyConfig

Observation = Mapping[str, Any]
ENCODER = "observation_encoder."  # prefix of an image encoder's weights beside those of the denoiser


class Policy(nn.Module):
    """What all policies share: observations in, weights and settings on the disk, which part of a chunk is executed.

    The action chunk has `horizon` entries. Entry 0 belongs to the oldest of the `n_obs_steps` observation frames, so
    that the first action still to be executed is entry `n_obs_steps - 1` (the convention of Diffusion Policy), unless
    the policy says otherwise: `first_action`.
    """

    quick_sampler = "ddim-10"  # for whoever wants to see episodes and does not mind by which sampler

    def __init__(
        self,
        denoiser: nn.Module,
        encoder: LowDimEncoder,
        normaliser: Normaliser,
        config: PolicyConfig,
    ):
        super().__init__()
        self.denoiser = denoiser
        self.encoder = encoder
        self.normaliser = normaliser
        self.config = config
        self.horizon = config.horizon
        self.n_obs_steps = config.n_obs_steps
        self.n_action_steps = config.n_action_steps
        self.first_action = config.first

    @property
    def control_hz(self) -> float | None:
        """Control steps per second that the actions are made for; None: nobody has said."""
        return self.config.control_hz

    @property
    def observation_keys(self) -> tuple[str, ...]:
        """Keys of the observation, in the order of the condition vector."""
        return self.encoder.keys

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.denoiser.parameters()).device

    def encode(self, observation: Observation) -> Tensor:
        """Condition of the denoiser for `observation`: {key: (B, To, ...) or (To, ...)}, arrays or tensors.

        Images are bytes, or floats in [0, 1]; their channels come first or last (see `unit_images`).
        """
        frames = {}
        for key in self.encoder.keys:
            if key not in observation:
                raise SpecpolicyError(
                    f"the observation has no key '{key}': the policy needs {', '.join(self.encoder.keys)}"
                )
            frames[key] = self.normaliser.normalise(key, self._frames(key, _tensor(key, observation[key])))
        counts = {key: len(value) for key, value in frames.items()}
        if len(set(counts.values())) > 1:
            found = ", ".join(f"'{key}' {count}" for key, count in counts.items())
            raise SpecpolicyError(f"the keys of an observation must have one batch size, these have: {found}")
        return self.encoder(frames)

    def frame_shape(self, key: str) -> tuple[int, ...]:
        """Shape of the frames of one key of one observation, the number of frames first."""
        shape = self.encoder.shapes[key]
        return (self.n_obs_steps, *([shape] if isinstance(shape, int) else shape))

    def _frames(self, key: str, value: Tensor) -> Tensor:
        """The frames (B, To, ...) of one key, checked."""
        expected = self.frame_shape(key)
        value = value[None] if value.dim() == len(expected) else value
        layouts = [expected]
        if is_image(expected[1:]):
            layouts.append((expected[0], *expected[2:], expected[1]))  # channels last
        if value.dim() != len(expected) + 1 or tuple(value.shape[1:]) not in layouts:
            raise SpecpolicyError(
                f"observation '{key}' has shape {tuple(value.shape)}: expected {expected} or (batch, *{expected})"
            )
        if is_image(expected[1:]):
            value = unit_images(key, value, expected[1:])
        return value.to(self.device, torch.float32)

    def executable(self, actions: Tensor) -> Tensor:
        """The part of chunks (..., H, D) that is executed: (..., n_action_steps, D) from the newest observation on."""
        if actions.dim() < 2 or actions.shape[-2] != self.horizon:
            raise SpecpolicyError(
                f"actions of shape {tuple(actions.shape)} are no chunks of {self.horizon} actions: give the `actions` "
                "that `predict` returns"
            )
        return actions[..., self.first_action : self.first_action + self.n_action_steps, :]

    @property
    def fingerprint(self) -> str:
        """Of the weights: what calibrations and draft models name the policy by that they were made for."""
        return policy_fingerprint(self.denoiser, self.encoder)

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Load the weights that `save` writes: the denoiser's, and those of an image encoder after a prefix.

        Raises:
            SpecpolicyError: weights that do not fit, or that are not finite.
        """
        own = self._weights()
        check_layout(layout_of(weights), own)
        check_finite(weights, own)
        encoder = part_of(weights, ENCODER)
        self.denoiser.load_state_dict({name: value for name, value in weights.items() if not name.startswith(ENCODER)})
        self.encoder.load_state_dict(encoder)

    def save(self, directory: str | Path, dtype: torch.dtype = torch.float32) -> Path:
        """Write `model.safetensors` and `config.json`; weights are stored as `dtype`."""
        config = dataclasses.replace(self.config, normaliser=self.normaliser.to_config())
        return write_checkpoint(directory, self._weights(), config, dtype)

    def _weights(self) -> dict[str, Tensor]:
        return self.denoiser.state_dict() | prefixed(self.encoder.state_dict(), ENCODER)


def _tensor(key: str, value: Any) -> Tensor:
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise SpecpolicyError(f"observation '{key}' is no array of numbers ({error})") from None
    if tensor.is_complex():
        raise SpecpolicyError(f"observation '{key}' holds complex numbers: real ones are expected")
    return tensor
