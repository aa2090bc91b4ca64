"""Compare chunks of a wrapped LeRobot DiffusionPolicy with LeRobot's own sampling.

scripts/lerobot_environment.sh runs it where both are installed.

Usage: lerobot_wrap.py DIRECTORY PAGE. DIRECTORY has pip's outputs before and after specpolicy was installed:
before.txt, after.txt, check_before.txt, check_after.txt. Writes the page; exits with 1 if anything on it is not as it
should be.
"""

import copy
import importlib.metadata
import importlib.util
import platform
import sys
from pathlib import Path

import energy
import lerobot_times
import torch
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy

from specpolicy.files import write_text
from specpolicy.integrations.lerobot import wrap

SAMPLERS = ("ddpm", "block", "asd", "recycled")
LEROBOT = "LeRobot, another seed"
CONTROL = "ddim-5"  # another distribution, which the comparison must detect
CHUNKS, STEPS = 1000, 100
STATE, ACTION = 3, 2


def make_policy(actions: int = ACTION, **options) -> DiffusionPolicy:
    """Make a policy of LeRobot's default size, but for `options`, with random weights."""
    config = DiffusionConfig(
        input_features={
            "observation.state": PolicyFeature(FeatureType.STATE, (STATE,)),
            "observation.environment_state": PolicyFeature(FeatureType.ENV, (STATE,)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (actions,))},
        num_train_timesteps=STEPS,
        pretrained_backbone_weights=None,
        device="cpu",
        **options,
    )
    return DiffusionPolicy(config).eval()


def trained() -> DiffusionPolicy:
    """Return a small policy, trained for a few steps on chunks with two modes: its distribution is not Gaussian."""
    policy = make_policy(horizon=8, n_action_steps=4, down_dims=(16, 32), diffusion_step_embed_dim=16).train()
    optimiser = torch.optim.Adam(policy.parameters(), 3e-3)
    for _ in range(300):
        mode = torch.where(torch.rand(64, 1, 1) < 0.3, 0.7, -0.4)
        batch = observations(64, torch.randn)
        batch["action"] = (mode + 0.1 * torch.randn(64, 8, ACTION)).clamp(-1, 1)
        batch["action_is_pad"] = torch.zeros(64, 8, dtype=torch.bool)
        loss, _ = policy.forward(batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return policy.eval()


def observations(count: int, values) -> dict[str, torch.Tensor]:
    """Return `count` histories of two frames."""
    return {name: values(count, 2, STATE) for name in ("observation.state", "observation.environment_state")}


def draw(policy: DiffusionPolicy, seed: int) -> torch.Tensor:
    """Return (CHUNKS, actions x dimensions): the executed part of chunks for one observation."""
    generator = torch.Generator().manual_seed(7)
    one = observations(1, lambda *shape: torch.randn(*shape, generator=generator))
    torch.manual_seed(seed)
    with torch.no_grad():  # before 0.5, predict_action_chunk takes its observations only from a queue
        batch = {key: value.expand(CHUNKS, -1, -1) for key, value in one.items()}
        return policy.diffusion.generate_actions(batch).flatten(1)


def distributions() -> tuple[list[str], bool]:
    """Return (lines of the page, whether all is as it should be)."""
    own = trained()
    rows, good = energy.compare(own, draw, SAMPLERS, CONTROL, LEROBOT, STEPS)
    reference = draw(own, seed=1)
    wrapped = wrap(copy.deepcopy(own), "ddpm")
    difference = float((draw(wrapped, seed=1) - reference).abs().max())
    good &= difference < 1e-4
    first = wrap(copy.deepcopy(own), "block")
    action = first.select_action({key: value[:, 0] for key, value in observations(1, torch.randn).items()})
    good &= action.shape == (1, ACTION)
    lines = [
        "| chunks of | calls | energy distance | p | |",
        "|---|---:|---:|---:|---|",
        *rows,
        "",
        f"Each row compares {CHUNKS} chunks of one observation with {CHUNKS} of LeRobot's own sampling; p over "
        f"{energy.PERMUTATIONS}\npermutations, and below {energy.LEVEL:g} the comparison fails. With the same seed, "
        f"`ddpm` gives LeRobot's own chunks\nto {difference:.0e}.",
    ]
    return lines, good


def times() -> list[str]:
    """Return the table of times, of a chunk of LeRobot's default size for one observation."""
    own, one = make_policy(actions=7), observations(1, torch.randn)
    parameters = sum(weights.numel() for weights in own.diffusion.unet.parameters())

    def draw(policy: DiffusionPolicy) -> None:
        policy.diffusion.generate_actions(one)

    size = f"LeRobot's default size ({parameters / 1e6:.0f} M parameters)"
    return lerobot_times.table(own, draw, SAMPLERS, STEPS, size)


def installed(directory: Path) -> tuple[list[str], bool]:
    """Return (lines on what installing specpolicy changed, whether that is only specpolicy)."""
    before, after = (set((directory / f"{name}.txt").read_text().splitlines()) for name in ("before", "after"))
    gone, come = sorted(before - after), sorted(line.partition(" @ ")[0] for line in after - before)
    old, new = (set((directory / f"check_{name}.txt").read_text().splitlines()) for name in ("before", "after"))
    broken = sorted(new - old - {"No broken requirements found."})
    good = not gone and not broken and come == ["specpolicy"]
    return [
        f"- `pip install specpolicy` added: {', '.join(come) or 'nothing'}; removed or replaced: "
        f"{', '.join(gone) or 'nothing'}",
        f"- `pip check` then had to say, that it had not before: {'; '.join(broken) or 'nothing'}",
    ], good


def transformer() -> tuple[list[str], bool]:
    """Return (lines on multi_task_dit, whether all is as it should be); newer versions of LeRobot have this policy."""
    if importlib.util.find_spec("lerobot.policies.multi_task_dit") is None:
        return ["## multi_task_dit", "", "This LeRobot does not have it."], True
    import lerobot_dit

    return lerobot_dit.lines()


def main() -> int:
    """Write the page and return the exit code."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    directory, page = map(Path, sys.argv[1:])
    changes, alone = installed(directory)
    table, equal = distributions()
    dit, same = transformer()
    names = ("lerobot", "torch", "torchvision", "numpy", "diffusers", "transformers", "safetensors", "specpolicy")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    text = f"""# Beside LeRobot

The core of specpolicy in an environment made for LeRobot, and a `DiffusionPolicy` of LeRobot's, {STEPS} steps, wrapped:
`wrap(policy, sampler)`.

- Python {platform.python_version()}: {versions}
{chr(10).join(changes)}

{chr(10).join(table)}

{chr(10).join(times())}

{chr(10).join(dit)}

{"All is as it should be." if alone and equal and same else "**Not all is as it should be.**"}

```bash
scripts/lerobot_environment.sh
```
"""
    write_text(page, text)
    print(text)
    return 0 if alone and equal and same else 1


if __name__ == "__main__":
    sys.exit(main())
