"""DiffusionPolicy: from an observation history to a chunk of actions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from specpolicy.checkpoints import write_checkpoint
from specpolicy.diffusion import GaussianChain
from specpolicy.errors import SpecpolicyError
from specpolicy.networks import ConditionalUnet1D, LowDimEncoder, TransformerForDiffusion
from specpolicy.normaliser import Normaliser
from specpolicy.samplers import Sample, Sampler, sample
from specpolicy.samplers.base import Generators

Observation = Mapping[str, Any]
NETWORKS = {"unet": ConditionalUnet1D, "transformer": TransformerForDiffusion}


class DiffusionPolicy(nn.Module):
    """Normaliser, encoder, denoiser, chain and a default sampler, put together.

    The action chunk has `horizon` entries; its entry 0 belongs to the oldest of the `n_obs_steps` observation
    frames, so the first action still to be executed is entry `n_obs_steps - 1` (the convention of Diffusion Policy).
    """

    def __init__(
        self,
        denoiser: nn.Module,
        chain: GaussianChain,
        encoder: LowDimEncoder,
        normaliser: Normaliser,
        *,
        action_dim: int,
        horizon: int,
        n_action_steps: int,
        config: dict[str, Any] | None = None,
    ):
        super().__init__()
        self.denoiser = denoiser
        self.chain = chain
        self.encoder = encoder
        self.normaliser = normaliser
        self.action_dim = action_dim
        self.horizon = horizon
        self.n_obs_steps = encoder.n_obs_steps
        self.n_action_steps = n_action_steps
        self.config = config or {}
        if self.n_obs_steps - 1 + n_action_steps > horizon:
            raise SpecpolicyError(
                f"horizon={horizon} is too short for n_obs_steps={self.n_obs_steps} and "
                f"n_action_steps={n_action_steps}: it must be at least {self.n_obs_steps - 1 + n_action_steps}"
            )

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "DiffusionPolicy":
        """Build an untrained policy from the layout of config.json (see `specpolicy.checkpoints`)."""
        kind = config["network"]["kind"]
        if kind not in NETWORKS:
            raise SpecpolicyError(f"unknown network kind '{kind}': use one of {', '.join(NETWORKS)}")
        tokens = kind == "transformer"
        encoder = LowDimEncoder(config["observation"], config["n_obs_steps"], tokens)
        action_dim, horizon = config["action_dim"], config["horizon"]
        options = {name: value for name, value in config["network"].items() if name != "kind"}
        if tokens:
            options |= dict(output_dim=action_dim, horizon=horizon, n_obs_steps=config["n_obs_steps"])
            options["cond_dim"] = encoder.output_dim
        else:
            options["global_cond_dim"] = encoder.output_dim
        try:
            denoiser = NETWORKS[kind](input_dim=action_dim, **options)
        except TypeError as error:
            raise SpecpolicyError(f"bad option for the {kind} network: {error}") from None
        denoiser.check_horizon(horizon)
        return cls(
            denoiser,
            GaussianChain.ddpm(**config["chain"]),
            encoder,
            Normaliser.from_config(config["normaliser"]),
            action_dim=action_dim,
            horizon=horizon,
            n_action_steps=config["n_action_steps"],
            config=config,
        ).eval()

    @property
    def observation_keys(self) -> tuple[str, ...]:
        """Keys of the observation, in the order of the condition vector."""
        return self.encoder.keys

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.denoiser.parameters()).device

    def encode(self, observation: Observation) -> Tensor:
        """Condition of the denoiser for `observation`: {key: (B, To, D_key) or (To, D_key)}, arrays or tensors."""
        frames = {}
        for key in self.encoder.keys:
            if key not in observation:
                raise SpecpolicyError(
                    f"the observation has no key '{key}': the policy needs {', '.join(self.encoder.keys)}"
                )
            value = torch.as_tensor(observation[key]).to(self.device, torch.float32)
            value = value[None] if value.dim() == 2 else value
            expected = (self.n_obs_steps, self.encoder.shapes[key])
            if value.dim() != 3 or tuple(value.shape[1:]) != expected:
                raise SpecpolicyError(
                    f"observation '{key}' has shape {tuple(value.shape)}: expected {expected} or (batch, *{expected})"
                )
            frames[key] = self.normaliser.normalise(key, value)
        return self.encoder(frames)

    @torch.inference_mode()
    def predict(
        self,
        observation: Observation,
        sampler: str | Sampler = "ddpm",
        generator: Generators = None,
        return_states: bool = False,
    ) -> Sample:
        """Draw one action chunk per observation: `actions` (B, H, D) in the environment's units.

        observation: {key: (B, To, D_key)}, or (To, D_key) for a batch of one. generator: one, or one per row.
        `states`, if asked for, stay in normalised units.
        """
        cond = self.encode(observation)
        shape = (len(cond), self.horizon, self.action_dim)
        out = sample(self.denoiser, self.chain, shape, cond, sampler, generator, return_states)
        out.actions = self.normaliser.unnormalise("action", out.actions)
        return out

    def executable(self, actions: Tensor) -> Tensor:
        """The part of a chunk (B, H, D) that is executed: (B, n_action_steps, D) from the newest observation on."""
        start = self.n_obs_steps - 1
        return actions[:, start : start + self.n_action_steps]

    def save(self, directory: str | Path, dtype: torch.dtype = torch.float32) -> Path:
        """Write `model.safetensors` and `config.json`; weights are stored as `dtype`."""
        config = {**self.config, "normaliser": self.normaliser.to_config()}
        return write_checkpoint(directory, self.denoiser.state_dict(), config, dtype)
