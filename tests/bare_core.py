"""What a robot's computer does with the core alone, from the import to a chunk; tests/test_packaging.py runs it where
nothing but torch, numpy and safetensors can be imported. Arguments: the directory of the shipped checkpoints."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

import specpolicy
from specpolicy.control import Chunk, Controller, Limits
from specpolicy.integrations import lerobot
from specpolicy.networks import ConditionalUnet1D
from specpolicy.policy.histories import read_histories
from specpolicy.samplers.recycled.calibration import Distillation, Effort
from specpolicy.samplers.registry import SAMPLERS
from specpolicy.tokens.samplers import DECODERS

TINY = Effort(
    chains=24,
    repeated=4,
    repeats=2,
    invented=8,
    scattered=2,
    rounds=8,
    passes=(Distillation(4, batch=16),),
    tests=8,
    steps=(),
    options={"hidden": 16, "observation": 16},
)


def draw_shipped(directory: Path, names: list[str]) -> None:
    """A chunk of a shipped policy by each sampler."""
    policy = specpolicy.load_policy(directory)
    history = {key: value[:1] for key, value in read_histories(directory / "observations.safetensors", policy).items()}
    for sampler in [None, *names]:
        out = policy.predict(history, sampler, torch.Generator().manual_seed(0))
        assert out.actions.shape[0] == 1 and bool(torch.isfinite(out.actions).all()), sampler


def calibrate() -> None:
    """A calibration of a smooth denoiser; and `residual`, which is for one dimension."""
    weight = 0.3 * torch.randn(2, 2)

    def denoiser(x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor | None) -> torch.Tensor:
        return torch.tanh(x @ weight[: x.shape[-1], : x.shape[-1]]) + 0.01 * t[:, None, None]

    chain, cond = specpolicy.GaussianChain.ddpm(8), torch.randn(24, 3)
    calibration = specpolicy.calibrate(denoiser, chain, (2, 2), cond, torch.Generator().manual_seed(1), TINY)
    sampler = specpolicy.make_sampler("recycled", calibration=calibration)
    assert specpolicy.sample(denoiser, chain, (1, 2, 2), cond[:1], sampler).actions.shape == (1, 2, 2)
    assert specpolicy.sample(denoiser, chain, (3, 1, 1), sampler="residual").actions.shape == (3, 1, 1)


class Cart:
    """A robot on a line."""

    def __init__(self) -> None:
        self.place, self.acted = 0.0, 0

    def observe(self) -> dict[str, np.ndarray]:
        return {"place": np.array([self.place])}

    def act(self, action: np.ndarray) -> None:
        self.place, self.acted = self.place + float(action[0]) / 50, self.acted + 1

    def stop(self) -> None:
        pass


class GoToOne:
    """Plans eight control steps of decreasing velocity."""

    n_obs_steps, n_action_steps = 1, 4

    def reset(self, seed: int | None) -> None:
        pass

    def plan(self, history: dict[str, np.ndarray]) -> Chunk:
        return Chunk((1 - history["place"][-1]) * 0.9 ** np.arange(8)[:, None])


def control() -> None:
    """The live loop, in a world that waits and in real time."""
    for options in ({"clock": "paused"}, {"worker": "thread"}):
        cart = Cart()
        controller = Controller(GoToOne(), cart, hz=50, limits=Limits(low=-2.0, high=2.0), **options)
        controller.run(seconds=0.4, start=np.zeros(1))
        assert cart.acted > 5 and cart.place > 0.05


class DDPMScheduler:
    """What is read of a scheduler of diffusers."""

    def __init__(self) -> None:
        self.config = {"num_train_timesteps": 8, "beta_schedule": "squaredcos_cap_v2", "clip_sample": True}
        self.timesteps = torch.arange(7, -1, -1)


class Unet(nn.Module):
    """A U-Net with the call of LeRobot's."""

    def __init__(self) -> None:
        super().__init__()
        self.net = ConditionalUnet1D(2, global_cond_dim=4, diffusion_step_embed_dim=8, down_dims=(8, 16), kernel_size=3)

    def forward(self, x: torch.Tensor, timestep: torch.Tensor, global_cond: torch.Tensor) -> torch.Tensor:
        return self.net(x, timestep, global_cond)


class DiffusionModel(nn.Module):
    """What `wrap` asks of LeRobot's."""

    def __init__(self) -> None:
        super().__init__()
        self.unet, self.noise_scheduler, self.num_inference_steps = Unet(), DDPMScheduler(), 8

    def conditional_sample(self, *arguments: object, **options: object) -> torch.Tensor:
        raise AssertionError("its own sampling is replaced")


def wrap() -> None:
    """A policy in memory, with LeRobot's interface."""
    policy = nn.Module()
    policy.diffusion = DiffusionModel()
    policy.config = SimpleNamespace(horizon=8, action_feature=SimpleNamespace(shape=(2,)))
    lerobot.wrap(policy, "block", torch.Generator().manual_seed(0))
    actions = policy.diffusion.conditional_sample(3, global_cond=torch.randn(3, 4))
    assert actions.shape == (3, 8, 2) and int(policy.last_stats.calls.max()) <= 8


def refuse() -> None:
    """What needs an extra says which."""
    for function, arguments in ((specpolicy.evaluate, ("policy", "lift")), (specpolicy.benchmark, ("policy",))):
        try:
            function(*arguments)
        except specpolicy.SpecpolicyError as error:
            assert "pip install 'specpolicy[cli" in str(error)
        else:
            raise AssertionError("it cannot work")


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)
    checkpoints = Path(sys.argv[1])
    draw_shipped(
        checkpoints / "lift", [name for name in SAMPLERS if name not in ("residual", "euler", "midpoint", "rk4")]
    )
    draw_shipped(checkpoints / "lift_tokens", list(DECODERS))
    calibrate()
    control()
    wrap()
    refuse()
    print("all of it works")
