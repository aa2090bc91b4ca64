"""Compare our reading of other projects' checkpoints with results that their own code computed.

Every directory below the given ones with a `reference.npz` is one comparison: beside it is a checkpoint written by its
project, and the file holds recorded observations, noises and results. Our network must agree to 1e-5, and our chunks,
drawn with the recorded noises, to 1e-4 in normalised units.

Usage: python scripts/check_peers.py DIRECTORY ...     (exit code 1 if anything differs by more)
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import specpolicy
from specpolicy.policy import DiffusionPolicy
from specpolicy.policy.rotations import convert_rotations
from specpolicy.samplers.base import Chunks

NETWORK, CHUNK = 1e-5, 1e-4
LEROBOT_NAMES = {"observation.state": "obs_state", "observation.environment_state": "obs_env"}


@dataclass
class Difference:
    """The largest difference of one recorded quantity, and its limit."""

    what: str
    found: float
    allowed: float

    @property
    def fine(self) -> bool:
        """Whether it is within the limit (a NaN is not)."""
        return self.found <= self.allowed


class RecordedNoise:
    """Gives out recorded noises in place of a generator's: (B, K, H, D), in the order of the steps."""

    def __init__(self, noises: Tensor):
        self._noises = iter(noises.unbind(dim=1))

    def normal(self, *shape: int, rows: Tensor | None = None) -> Tensor:
        """Return the noise of the next step."""
        return next(self._noises)

    def uniform(self, *shape: int, rows: Tensor | None = None) -> Tensor:
        """Refuse: a sequential sampler makes no random decisions."""
        raise NotImplementedError


def checkpoint_in(directory: Path) -> Path:
    """Return the checkpoint beside a reference: an archive, else the directory itself."""
    archives = sorted(path for path in directory.iterdir() if path.suffix in (".ckpt", ".pth", ".pt"))
    return archives[0] if archives else directory


def observation_of(policy: DiffusionPolicy, reference: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the recorded observations under the policy's keys."""
    observation = {}
    for key in policy.observation_keys:
        if key == "condition":  # of a denoiser whose encoders stayed with their project
            observation[key] = reference["global_cond"].reshape(-1, *policy.frame_shape(key))
            continue
        names = (key, f"obs_{key}", LEROBOT_NAMES.get(key, ""), f"obs_{key.removeprefix('observation.')}")
        name = next((name for name in names if name in reference), None)
        if name is None:
            raise SystemExit(f"the reference has no observation '{key}': it has {', '.join(reference)}")
        observation[key] = reference[name]
    return observation


@torch.inference_mode()
def compare(policy: DiffusionPolicy, reference: dict[str, np.ndarray]) -> Iterator[Difference]:
    """Yield every comparison that the reference allows."""
    recorded = {name: torch.as_tensor(value) for name, value in reference.items()}
    cond = policy.encode(observation_of(policy, reference))
    if "global_cond" in recorded:
        yield _difference("condition", cond.flatten(1), recorded["global_cond"].flatten(1), NETWORK)
    inpaints = policy.sample_shape[1] != recorded["naction"].shape[-1] or hasattr(policy.denoiser, "action_dim")
    network, rows = policy.denoiser, cond[recorded["eps_obs_index"]] if "eps_obs_index" in recorded else None
    if "eps_x" in recorded:
        # If observations are painted into the chunk, the recorded inputs already hold them: call the network directly.
        # The network of a flow takes its own states and times; what stands before it is checked by the chunk.
        bare = network if policy.config.flow is None else network.network
        output = bare(recorded["eps_x"], recorded["eps_t"], None if inpaints else rows)
        yield _difference("network", output, recorded["eps_out"], NETWORK)
    start = recorded["noise_init"]
    noise = RecordedNoise(recorded.get("noise_step", start[:, None][:, :0]))
    setting = policy.setting()
    sampler = specpolicy.make_sampler((policy.config.source or {}).get("sampler", "ddpm"))
    chunk = sampler.bind(setting)(setting.model, Chunks(start, cond, noise)).actions
    width = policy.sample_shape[1] - (policy.encoder.frame_dim if inpaints else 0)
    yield _difference("chunk, normalised", chunk[..., :width], recorded["naction"][..., :width], CHUNK)
    raw = policy.normaliser.unnormalise("action", chunk[..., :width])
    name = next((name for name in ("action", "action_chunk") if name in recorded), None)
    if name is None:
        return
    executed, wanted = policy.executable(convert_rotations(raw, policy.rotations)), recorded[name].float()
    if policy.rotations:
        yield _difference("executed actions, raw", executed, wanted, 1e-3)
    else:
        normalise = policy.normaliser.normalise
        yield _difference("executed actions", normalise("action", executed), normalise("action", wanted), CHUNK)


def _difference(what: str, ours: Tensor, theirs: Tensor, allowed: float) -> Difference:
    if ours.shape != theirs.shape:
        return Difference(f"{what}: shape {tuple(ours.shape)}, recorded {tuple(theirs.shape)}", float("nan"), allowed)
    return Difference(what, float((ours - theirs).abs().max()), allowed)


def check(directory: Path) -> list[Difference]:
    """Return all comparisons for one directory."""
    with np.load(directory / "reference.npz") as reference:
        return list(compare(specpolicy.load_policy(checkpoint_in(directory)), dict(reference)))


def main(arguments: list[str]) -> int:
    """Check every directory and print a line for each comparison."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if arguments else 2
    directories = sorted(path.parent for root in arguments for path in Path(root).rglob("reference.npz"))
    if not directories:
        print(f"no reference.npz below {', '.join(arguments)}", file=sys.stderr)
        return 2
    torch.set_num_threads(1)  # the networks are small
    failures = 0
    for directory in directories:
        try:
            differences = check(directory)
        except specpolicy.SpecpolicyError as error:
            print(f"{directory.name}: {error}")
            failures += 1
            continue
        for difference in differences:
            failures += not difference.fine
            verdict = "" if difference.fine else "   TOO FAR"
            figures = f"{difference.found:.1e} (allowed {difference.allowed:g})"
            print(f"{directory.name:32} {difference.what:24} {figures}{verdict}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
