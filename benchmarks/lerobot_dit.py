"""Compare a wrapped MultiTaskDiTPolicy of LeRobot with LeRobot's own sampling: distribution, calls, time.

Nothing is downloaded: tiny towers of CLIP with random weights stand in place of the pretrained ones.
benchmarks/lerobot_wrap.py puts the result on its page.

Usage where LeRobot with its extra multi_task_dit is installed: lerobot_dit.py     prints the lines of the page
"""

import contextlib
import copy
import sys
import tempfile
from pathlib import Path
from unittest import mock

import energy
import lerobot_times
import torch
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.policies.multi_task_dit import modeling_multi_task_dit as modeling
from lerobot.policies.multi_task_dit.configuration_multi_task_dit import MultiTaskDiTConfig
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModel

import specpolicy
from specpolicy.integrations.lerobot import wrap
from specpolicy.integrations.names import CLIP, CLIP_IGNORED, below, renamed
from specpolicy.networks.clip import ClipVision, LanguageEncoder
from specpolicy.networks.vision_options import ClipOptions, LanguageOptions
from specpolicy.policy.base import ENCODER

SAMPLERS = ("ddpm", "block", "asd", "recycled")
LEROBOT = "LeRobot, another seed"
CONTROL = "ddim-3"  # another distribution, which the comparison must detect
CHUNKS, STEPS = 1000, 100
STATE, ACTION = 3, 2


def towers(width: int) -> contextlib.ExitStack:
    """Put small towers in place of pretrained ones; `width`: of that for images."""
    shared = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
    sizes = shared | dict(hidden_size=width, image_size=32, patch_size=16)

    def vision(cls, name, **options):
        return CLIPVisionModel(CLIPVisionConfig(**sizes))

    def text(cls, name, **options):
        return CLIPTextModel(CLIPTextConfig(**shared, vocab_size=64, max_position_embeddings=77, eos_token_id=2))

    stack = contextlib.ExitStack()
    stack.enter_context(mock.patch.object(modeling.CLIPVisionModel, "from_pretrained", classmethod(vision)))
    stack.enter_context(mock.patch.object(modeling.CLIPTextModel, "from_pretrained", classmethod(text)))
    return stack


def make_policy(
    actions: int = ACTION, state: int = STATE, cameras: tuple[str, ...] = ("front",), width: int = 32, **options
) -> modeling.MultiTaskDiTPolicy:
    """Make a policy with random weights; its modulations, which begin at zero, too."""
    config = MultiTaskDiTConfig(
        input_features={
            "observation.state": PolicyFeature(FeatureType.STATE, (state,)),
            **{f"observation.images.{name}": PolicyFeature(FeatureType.VISUAL, (3, 32, 32)) for name in cameras},
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (actions,))},
        image_crop_shape=None,
        device="cpu",
        **options,
    )
    with towers(width):
        policy = modeling.MultiTaskDiTPolicy(config)
    for block in policy.noise_predictor.transformer_blocks:
        torch.nn.init.normal_(block.adaLN_modulation[-1].weight, std=0.02)
    return policy.eval()


def batch_of(count: int, seed: int) -> dict[str, torch.Tensor]:
    """Return `count` histories of two frames, with the text of a task as tokens."""
    source = torch.Generator().manual_seed(seed)
    tokens = torch.randint(3, 60, (count, 77), generator=source)
    return {
        "observation.state": torch.randn(count, 2, STATE, generator=source),
        "observation.images": torch.rand(count, 2, 1, 3, 32, 32, generator=source),
        "observation.images.front": torch.rand(count, 2, 3, 32, 32, generator=source),
        "observation.language.tokens": tokens,
        "observation.language.attention_mask": torch.ones(count, 77, dtype=torch.bool),
    }


def trained(objective: str = "diffusion") -> modeling.MultiTaskDiTPolicy:
    """Return a small policy, trained for a few steps on chunks with two modes: its distribution is not Gaussian."""
    sizes = dict(horizon=8, n_action_steps=4, hidden_dim=32, num_layers=2, num_heads=4, timestep_embed_dim=16)
    policy = make_policy(**sizes, dropout=0.0, objective=objective)
    optimiser = torch.optim.Adam(policy.noise_predictor.parameters(), 3e-3)
    policy.train()
    for step in range(300):
        mode = torch.where(torch.rand(64, 1, 1) < 0.3, 0.7, -0.4)
        batch = batch_of(64, step)
        batch["action"] = (mode + 0.1 * torch.randn(64, 8, ACTION)).clamp(-1, 1)
        batch["action_is_pad"] = torch.zeros(64, 8, dtype=torch.bool)
        loss, _ = policy.forward(batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return policy.eval()


@torch.no_grad()
def draw(policy: modeling.MultiTaskDiTPolicy, seed: int, count: int = CHUNKS) -> torch.Tensor:
    """Return (count, actions x dimensions): the executed part of chunks for one observation."""
    batch = {key: value.expand(count, *value.shape[1:]) for key, value in batch_of(1, 7).items()}
    torch.manual_seed(seed)
    return policy._generate_actions(batch).flatten(1)


def distributions(own: modeling.MultiTaskDiTPolicy) -> tuple[list[str], bool]:
    """Return (rows of the table of distributions, whether all is as it should be)."""
    rows, good = energy.compare(own, draw, SAMPLERS, CONTROL, LEROBOT, STEPS)
    reference = draw(own, seed=1)
    difference = float((draw(wrap(copy.deepcopy(own)), seed=1) - reference).abs().max())
    rows += ["", f"With the same seed, `ddpm` gives LeRobot's own chunks to {difference:.0e}."]
    return rows, good and difference < 1e-4


def from_directory(own: modeling.MultiTaskDiTPolicy) -> tuple[str, bool]:
    """Return (a sentence on the directory that LeRobot writes of a policy, whether it is the same policy here)."""
    with tempfile.TemporaryDirectory() as directory:
        own.save_pretrained(directory)
        read = specpolicy.load_policy(Path(directory))
    batch, x, t = batch_of(3, 5), torch.randn(3, 8, ACTION), torch.tensor([0, 50, 99])
    with torch.no_grad():
        cond = own.observation_encoder.encode(batch)
        expected = own.noise_predictor(x, t, conditioning_vec=cond)
        difference = float((read.denoiser(x, t, cond) - expected).abs().max())
    return f"`load_policy` of its directory computes LeRobot's output to {difference:.0e}.", difference < 1e-5


def flow() -> tuple[str, bool]:
    """Return (a sentence on a policy whose objective is flow matching, whether all is as it should be)."""
    own = trained("flow_matching")
    reference = draw(own, seed=1)
    difference = float((draw(wrap(copy.deepcopy(own)), seed=1) - reference).abs().max())
    exact = wrap(copy.deepcopy(own), "recycled")
    draw(exact, seed=1, count=1)
    return (
        f"Of the objective `flow_matching`, {own.config.num_integration_steps} steps, the wrapped policy gives "
        f"LeRobot's own chunks to {difference:.0e}; its ancestral chain, another distribution, takes `recycled` "
        f"{int(exact.last_stats.calls)} calls."
    ), difference < 1e-4


@torch.no_grad()
def towers_agree(own: modeling.MultiTaskDiTPolicy) -> tuple[str, bool]:
    """Return (a sentence on our towers of CLIP with the weights of LeRobot's, whether they compute the same)."""
    weights, batch = own.observation_encoder.state_dict(), batch_of(3, 5)
    tokens = batch["observation.language.tokens"]
    tokens[:, 40:] = 63  # the largest token ends a text and pads it
    used = {name: value for name, value in weights.items() if not CLIP_IGNORED.fullmatch(name)}
    named, strange = renamed(used, CLIP, ["0"])
    tower = dict(width=32, layers=1, heads=2, hidden=64)
    vision = ClipVision(ClipOptions(**tower, patch=16, size=32)).eval()
    features = own.config.hidden_dim
    language = LanguageEncoder(LanguageOptions(**tower, vocabulary=64, positions=77, features=features)).eval()
    vision.load_state_dict(below(named, f"{ENCODER}vision.0.tower."))
    language.load_state_dict(below(named, f"{ENCODER}language."))
    state, images = batch["observation.state"], batch["observation.images"][:, :, 0]
    seen = vision(images.flatten(0, 1)).unflatten(0, images.shape[:2])
    ours = torch.cat([state, seen, language(tokens)[:, None].expand(-1, 2, -1)], dim=-1).flatten(1)
    difference = float((own.observation_encoder.encode(batch) - ours).abs().max())
    return f"Our towers of CLIP compute its condition to {difference:.0e}.", difference < 1e-4 and not strange


def times() -> list[str]:
    """Return the table of times, of a chunk of LeRobot's default size with two cameras for one observation."""
    own = make_policy(actions=7, state=7, cameras=("front", "wrist"), width=768)
    cond = torch.randn(1, own.noise_predictor.conditioning_dim)

    def draw(policy: modeling.MultiTaskDiTPolicy) -> None:
        policy.objective.conditional_sample(policy.noise_predictor, 1, cond)

    size = "LeRobot's default size with two cameras (100 M parameters)"
    return lerobot_times.table(own, draw, SAMPLERS, STEPS, size)


def lines() -> tuple[list[str], bool]:
    """Return (lines of the page, whether all is as it should be)."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    own = trained()
    table, equal = distributions(own)
    sentence, same = from_directory(own)
    encoders, alike = towers_agree(own)
    flows, equal_flow = flow()
    return [
        "## multi_task_dit",
        "",
        f"A small `MultiTaskDiTPolicy`, {STEPS} steps, with tiny towers of CLIP, trained on chunks with two modes;",
        f"{CHUNKS} chunks of one observation against as many of LeRobot's own sampling.",
        "",
        "| chunks of | calls | energy distance | p | |",
        "|---|---:|---:|---:|---|",
        *table,
        sentence,
        encoders,
        flows,
        "",
        *times(),
    ], equal and same and alike and equal_flow


if __name__ == "__main__":
    text, good = lines()
    print("\n".join(text))
    sys.exit(0 if good else 1)
