"""Train draft models for a policy: the drafters of De Bortoli et al. 2025 that need one.

`independent` is a small denoiser distilled from the policy. `corrected` is a head that predicts how the network's x0
changes after the current state. Both keep sampling exact; `specpolicy benchmark` measures how much they save.

Examples:
  specpolicy train_drafter policy=checkpoints/lift
  specpolicy benchmark policy=checkpoints/lift 'samplers=[{name: reflection, drafter: independent}]'
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from specpolicy.errors import SpecpolicyError

SETTINGS = "train_drafter.yaml"
FILES = ("drafters.safetensors", "drafters.json", SETTINGS)
KNOWN = {"drafters.json": {"format", "options", "report"}}  # by which such a file is known as ours


def run(config: DictConfig) -> None:
    """Train the draft models that `config` (configs/train_drafter.yaml) describes."""
    from specpolicy.cli.own_outputs import check_own, made_here
    from specpolicy.cli.policies import output_beside, pin
    from specpolicy.outputs import claim
    from specpolicy.policy import load_policy
    from specpolicy.policy.draft_models import KINDS, check_sizes
    from specpolicy.samplers.speculative.loop import check_noise
    from specpolicy.training.draft_models import check_steps

    unknown = [kind for kind in config.kinds if kind not in KINDS]
    if unknown or not config.kinds:
        raise SpecpolicyError(f"kinds={list(config.kinds)}: expected some of {', '.join(KINDS)}")
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    output = output_beside(config)
    pin(config)
    policy: Any = load_policy(config.policy, config.device, bare=True)  # what is there is made anew
    if policy.kind != "diffusion":
        raise SpecpolicyError(f"{config.policy} needs no draft model: policies of action tokens draft from themselves")
    check_noise(policy.chain)
    for kind in config.kinds:
        check_steps(kind, policy.chain)
    if "independent" in config.kinds:
        check_sizes(config.down_dims, policy.horizon, policy.action_dim)
    if not output.is_dir() and config.output is None:
        raise SpecpolicyError(f"{output} is no directory: give output=, where the draft models shall go")
    with claim(output, "train_drafter"):
        check_own(output, "train_drafter", FILES, lambda place: made_here(place, KNOWN), settings=SETTINGS)
        _train(config, policy, output)


def _train(config: DictConfig, policy: Any, output: Path) -> None:
    """Train the draft models and write them to `output`, which this run holds."""
    from specpolicy.cli.configuration import save_config
    from specpolicy.cli.observations import conditions
    from specpolicy.logging.progress import progress_bar
    from specpolicy.policy.draft_models import DraftModels
    from specpolicy.samplers.base import NoiseSource
    from specpolicy.samplers.recycled.calibration.recording import record_sequential
    from specpolicy.training.draft_models import train_denoiser, train_head

    start = time.perf_counter()
    cond = conditions(policy, config)
    generator = torch.Generator().manual_seed(config.seed)
    shape, device = torch.Size(policy.sample_shape), cond.device
    chosen = torch.arange(config.chains) % len(cond)
    with progress_bar(config.chains, "sequential chains") as bar, torch.no_grad():
        record = record_sequential(
            policy.denoiser,
            policy.chain,
            shape,
            cond,
            chosen.to(device),
            lambda batch: NoiseSource(generator, batch, device, torch.float32),
            bar.advance,
        )
    size = cond[0].numel()
    models = DraftModels(fingerprint=policy.fingerprint)
    torch.manual_seed(config.seed)  # of the initial weights
    for kind in config.kinds:
        if kind == "independent":
            options = {"action_dim": shape[1], "cond_dim": size, "down_dims": list(config.down_dims)}
        else:
            steps = policy.chain.process.steps
            options = {"horizon": shape[0], "action_dim": shape[1], "cond_dim": size, "train_steps": steps}
        model = models.add(kind, **options).to(device)
        train = train_denoiser if kind == "independent" else train_head
        with progress_bar(config.training_steps, f"train {kind}") as bar:
            train(
                model,
                policy.chain,
                record,
                cond,
                shape,
                config.training_steps,
                generator,
                lambda loss: bar.advance(1, loss=loss),
            )
    models.report = {"config": OmegaConf.to_container(config), "seconds": round(time.perf_counter() - start, 1)}
    save_config(config, output / SETTINGS, "train_drafter")
    models.save(output)
    print(f"wrote {output}/drafters.safetensors and .json")
