"""Write a small diffusion policy with LeRobot's own code, and record results that LeRobot computes with it.

Needs LeRobot, which requires another numpy than robosuite. Run it in a separate environment, for example

    python -m venv .venv-lerobot && .venv-lerobot/bin/pip install 'lerobot==0.4.4'
    .venv-lerobot/bin/python scripts/write_lerobot_checkpoint.py tests/data/lerobot_state

Works with versions before 0.4, which keep statistics among the weights, and later ones, which write processors. Options
are fields of LeRobot's DiffusionConfig as JSON; `cameras=2` and `size=[96,96]` add images:

    ... write_lerobot_checkpoint.py outputs/lerobot_images cameras=2 use_group_norm=true 'crop_shape=[84,84]'

scripts/check_peers.py compares these results with ours.
"""

import json
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy

try:
    from lerobot.policies.diffusion.processor_diffusion import make_diffusion_pre_post_processors
except ImportError:
    make_diffusion_pre_post_processors = None

SMALL = {
    "horizon": 8,
    "n_obs_steps": 2,
    "n_action_steps": 4,
    "down_dims": (8, 16, 24),
    "diffusion_step_embed_dim": 8,
    "num_train_timesteps": 50,
    "pretrained_backbone_weights": None,
    "device": "cpu",
}
STATE_DIM, ENVIRONMENT_DIM, ACTION_DIM, OBSERVATIONS, BATCH = 3, 4, 2, 2, 16


def main(directory: Path, options: dict) -> None:
    """Write the checkpoint and `reference.npz` into the directory."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    cameras, size = options.pop("cameras", 0), tuple(options.pop("size", (96, 96)))
    modes = {name: NormalizationMode(mode) for name, mode in options.pop("normalization_mapping", {}).items()}
    inputs = {"observation.state": PolicyFeature(FeatureType.STATE, (STATE_DIM,))}
    inputs |= {f"observation.images.{i}": PolicyFeature(FeatureType.VISUAL, (3, *size)) for i in range(cameras)}
    inputs["observation.environment_state"] = PolicyFeature(FeatureType.ENV, (ENVIRONMENT_DIM,))
    outputs = {"action": PolicyFeature(FeatureType.ACTION, (ACTION_DIM,))}
    config = DiffusionConfig(input_features=inputs, output_features=outputs, **{**SMALL, **options})
    config.normalization_mapping |= modes
    features = {**inputs, "action": outputs["action"]}
    statistics = {key: _statistics(feature) for key, feature in features.items()}
    before = after = None
    if make_diffusion_pre_post_processors:
        policy = DiffusionPolicy(config)
        before, after = make_diffusion_pre_post_processors(config, statistics)
        before.save_pretrained(directory)
        after.save_pretrained(directory)
    else:
        policy = DiffusionPolicy(config, statistics)
    _train(policy, features)
    policy.eval()
    policy.save_pretrained(directory)
    np.savez_compressed(directory / "reference.npz", **_record(policy, inputs, before, after))


def _statistics(feature: PolicyFeature) -> dict[str, torch.Tensor]:
    shape = (feature.shape[0], 1, 1) if len(feature.shape) == 3 else feature.shape
    low, span = torch.randn(shape), torch.rand(shape) + 0.2
    if len(feature.shape) == 1 and feature.type is not FeatureType.ACTION:
        span.view(-1)[0] = 0.0  # a dimension that never changes
    return {"min": low, "max": low + span, "mean": low + span / 2, "std": span / 4}


def _train(policy: DiffusionPolicy, features: dict[str, PolicyFeature]) -> None:
    """Train for a few steps on noise, so that no weight keeps its initial value."""
    optimiser = torch.optim.Adam(policy.parameters(), 1e-3)
    policy.train()
    config = policy.config
    for _ in range(5):
        batch = {
            key: torch.rand(BATCH if config.image_features == {} else 2, config.n_obs_steps, *feature.shape)
            for key, feature in features.items()
        }
        batch["action"] = torch.rand(len(batch["action"]), config.horizon, ACTION_DIM) * 2 - 1
        batch["action_is_pad"] = torch.zeros(batch["action"].shape[:2], dtype=torch.bool)
        loss, _ = policy.forward(batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


@torch.no_grad()
def _record(policy: DiffusionPolicy, inputs: dict[str, PolicyFeature], before, after) -> dict[str, np.ndarray]:
    config, model = policy.config, policy.diffusion
    generator = torch.Generator().manual_seed(1)
    low = {key: before.steps[3]._tensor_stats[key]["min"] if before else torch.zeros(1) for key in inputs}
    record: dict[str, list] = {name: [] for name in ("noise_init", "noise_step", "global_cond", "naction", "chunk")}
    observations = {
        key: torch.rand(OBSERVATIONS, config.n_obs_steps, *feature.shape, generator=generator) + (
            0 if len(feature.shape) == 3 else low[key]
        )
        for key, feature in inputs.items()
    }  # fmt: skip
    for key, value in observations.items():
        if value.dim() == 3 and before:
            value[..., 0] = low[key][0]  # the dimension that never changes
    for index in range(OBSERVATIONS):
        policy.reset()
        frames = [
            {key: value[index, step][None] for key, value in observations.items()} for step in range(config.n_obs_steps)
        ]
        noises: list[torch.Tensor] = []
        kept: dict[str, torch.Tensor] = {}

        def sample(batch_size, global_cond=None, *arguments, original=model.conditional_sample, kept=kept, **options):
            kept["global_cond"] = global_cond
            kept["naction"] = original(batch_size, global_cond, *arguments, **options)
            return kept["naction"]

        def randn(*arguments, original=torch.randn, noises=noises, **options):
            noises.append(original(*arguments, **options))
            return noises[-1]

        torch.manual_seed(100 + index)
        with mock.patch.object(model, "conditional_sample", sample), mock.patch.object(torch, "randn", randn):
            for frame in frames:  # the first call draws an action; then the queue holds the observations
                policy._queues["action"].clear()
                noises.clear()
                action = policy.select_action(before(dict(frame)) if before else dict(frame))
        chunk = torch.stack([action, *policy._queues["action"]], dim=1)
        if after:  # one action at a time, as robots take them
            chunk = torch.stack([after(step) for step in chunk.unbind(1)], dim=1)
        record["chunk"].append(chunk)
        record["noise_init"].append(noises[0])
        steps = noises[1:] or [noises[0][:0]]
        record["noise_step"].append(torch.stack([noise for noise in steps if len(noise)], 1) if len(noises) > 1 else
                                    torch.zeros(1, 0, *noises[0].shape[1:]))  # fmt: skip
        for name, value in kept.items():
            record[name].append(value)
    found = {name: torch.cat(values).float().numpy() for name, values in record.items()}
    found["action_chunk"] = found.pop("chunk")
    found |= {key: value.numpy() for key, value in observations.items()}
    found["eps_x"] = torch.randn(5, config.horizon, ACTION_DIM, generator=generator).numpy()
    found["eps_t"] = torch.linspace(0, config.num_train_timesteps - 1, 5).long().numpy()
    found["eps_obs_index"] = np.array([0, 1, 0, 1, 0])
    rows = torch.as_tensor(found["global_cond"])[found["eps_obs_index"]]
    found["eps_out"] = model.unet(torch.tensor(found["eps_x"]), torch.tensor(found["eps_t"]), rows).numpy()
    return found


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__)
    given = dict(argument.split("=", 1) for argument in sys.argv[2:])
    main(Path(sys.argv[1]), {name: json.loads(value) for name, value in given.items()})
