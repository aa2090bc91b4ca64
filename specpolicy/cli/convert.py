"""Convert a checkpoint of another project into our format: safetensors and JSON, without executable code.

Reads diffusion_policy's .ckpt (low-dimensional U-Nets and transformers, and hybrid image policies), LeRobot's
directories of type diffusion, and robomimic's .pth of DiffusionPolicyUNet. None of these packages is needed. Other
verbs can read these checkpoints directly, too; after conversion, the pickle need not be opened again.

Examples:
  specpolicy convert path=data/outputs/train/checkpoints/latest.ckpt out=checkpoints/push_t_dp
  specpolicy convert path=outputs/train/checkpoints/last/pretrained_model out=checkpoints/push_t_lerobot
  specpolicy convert path=model_epoch_600.pth out=checkpoints/can_robomimic half_precision=true
"""

import contextlib
import dataclasses
import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from specpolicy.cli.beside import BESIDE
from specpolicy.errors import SpecpolicyError

PART = ".specpolicy.part"  # directory in `out` that holds a conversion until it is complete
FILES = ("convert.yaml", "model.safetensors", "config.json")  # the last file makes it a checkpoint


def run(config: DictConfig) -> None:
    """Convert the checkpoint that `config` (configs/convert.yaml) names."""
    import torch

    from specpolicy.artifacts import local_path
    from specpolicy.cli.configuration import save_config
    from specpolicy.cli.own_outputs import is_checkpoint, saved_by
    from specpolicy.cli.policies import pin
    from specpolicy.outputs import LOCK, claim, remove
    from specpolicy.policy import load_policy
    from specpolicy.rates import one_rate, parse_hz

    pin(config, "path")
    out = Path(config.out)
    if out.is_dir() and os.path.realpath(local_path(config.path)) == os.path.realpath(out):
        raise SpecpolicyError(f"out={out} is the checkpoint itself: choose another directory")
    with claim(out, "convert"):
        part = out / PART
        _discard(part)  # left by a killed run
        if not (out / FILES[-1]).exists() and saved_by(out / FILES[0], "convert"):
            remove(out, FILES)  # left by a run that was killed while it put its files in place
        if [path for path in out.iterdir() if path.name != LOCK]:
            if not config.overwrite:
                raise SpecpolicyError(f"out={out} is not empty: choose another directory or overwrite=true")
            if not is_checkpoint(out):
                raise SpecpolicyError(f"out={out} holds no checkpoint of ours: choose another directory")
        policy = load_policy(config.path, trust=config.trust)
        told = parse_hz(config.control_hz, "control_hz")
        hz = one_rate(policy.control_hz, told, f"{config.path} and control_hz={config.control_hz}")
        policy.config = dataclasses.replace(policy.config, control_hz=hz)
        try:
            policy.save(part, torch.float16 if config.half_precision else torch.float32)
            save_config(config, part / "convert.yaml", "convert")
            beside = _save_beside(policy, load_policy(part, bare=True), part)
            load_policy(part)  # checks that the result can be read
            remove(out, [*BESIDE, *FILES])
            for name in [*beside, *FILES]:
                (part / name).rename(out / name)
        finally:
            _discard(part)
    print(describe(policy))
    print(f"saved {out}")


def _save_beside(policy: Any, written: Any, part: Path) -> list[str]:
    """Write what belongs to a policy beside its converted checkpoint; return the names of the files.

    Half precision rounds the weights a little. What was made for the unrounded weights still serves, under the new
    fingerprint.
    """

    before = set(part.iterdir())
    for belonging in (policy.calibration, getattr(policy, "draft_models", None)):
        if belonging is not None and getattr(belonging, "fingerprint", None) is not None:
            dataclasses.replace(belonging, fingerprint=written.fingerprint).save(part)
    if policy.predictor is not None:
        policy.predictor.save(part)
    return [path.name for path in set(part.iterdir()) - before if path.name in BESIDE]


def _discard(part: Path) -> None:
    """Delete what is left of an incomplete conversion."""
    from specpolicy.outputs import remove, remove_temporary

    remove(part, [*BESIDE, *FILES])
    remove_temporary(part, [*BESIDE, *FILES])
    with contextlib.suppress(OSError):
        part.rmdir()


def describe(policy) -> str:
    """Describe in a few lines what a policy sees and plans, and its size."""
    source = policy.config.source or {}
    parameters = sum(parameter.numel() for parameter in policy.parameters())
    seen = ", ".join(
        f"{key} {shape if isinstance(shape, int) else ' x '.join(map(str, shape))}"
        for key, shape in policy.encoder.shapes.items()
    )
    taken = f", of which its weights '{source['weights']}' were taken" if "weights" in source else ""
    lines = [
        f"{source.get('policy', type(policy).__name__)} of {source.get('project', 'specpolicy')}, "
        f"{parameters / 1e6:.2f} M parameters{taken}",
        f"sees {policy.n_obs_steps} frames of {seen}",
        f"plans {policy.horizon} actions of {policy.action_dim} numbers, "
        f"executes {policy.n_action_steps} from entry {policy.first_action}"
        + (
            ", at a rate that is not known: give control_hz="
            if policy.control_hz is None
            else f", at {policy.control_hz:g} Hz"
        ),
    ]
    if policy.config.tokens is not None:
        lines.append(f"decodes {policy.tokens} tokens of {policy.tokeniser.bins} {policy.tokeniser.kind} bins")
    elif policy.config.mip is not None:
        lines.append(
            f"regresses in {len(policy.chain)} steps without noise, the second at time {policy.config.mip.time:g}"
        )
    else:
        chain = policy.chain
        ancestral = "DDPM" if policy.config.flow is None else "its ancestral chain"
        kind = ancestral if chain.eta is None else f"DDIM (eta {chain.eta:g})"
        prediction = chain.process.prediction
        lines.append(f"samples by {kind}, {len(chain)} of {chain.process.steps} steps, predicts {prediction}")
    return "\n".join(lines)
