"""An untrained policy for data: its normaliser, its tokens and the shapes of what it observes follow from them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from specpolicy.data.dataset import Sequences
from specpolicy.errors import SpecpolicyError
from specpolicy.networks import ResNetOptions, TorchvisionOptions, VisionOptions
from specpolicy.networks.torchvision_backbone import load_backbone
from specpolicy.policy import DiffusionPolicy, Policy, TokenPolicy
from specpolicy.policy.config import PolicyConfig, PolicyOptions
from specpolicy.policy.normaliser import Normaliser, Statistics
from specpolicy.tokens.tokeniser import make_tokeniser

# Mean and deviation of the images that torchvision's weights were made with, red, green and blue in [0, 1].
SEEN_BEFORE = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def new_policy(
    options: PolicyOptions,
    training: Sequences,
    task: Mapping[str, Any],
    hz: float | None = None,
    command: str | None = None,
) -> Policy:
    """Return an untrained policy; the weights of a backbone come from the file that the options name.

    Args:
        options: its networks and what else is chosen.
        training: the windows it will learn from.
        task, hz, command: see `PolicyConfig`.

    Raises:
        SpecpolicyError: options that do not fit the data, or each other; a file of weights that cannot be used.
    """
    vision = _checked_vision(options, training)
    normaliser = Normaliser.min_max(training.ranges())
    bins = None
    if options.tokens is not None:
        actions = normaliser.normalise("action", training.action)
        bins = make_tokeniser(options.tokens.kind, options.tokens.bins, actions).to_config()
    images = {} if vision is None else dict.fromkeys(training.images, image_statistics(vision))
    settings = PolicyConfig(
        network=options.network,
        chain=options.chain if options.objective == "diffusion" else None,
        flow=options.flow if options.objective == "flow" else None,
        mip=options.mip if options.objective == "mip" else None,
        tokens=bins,
        vision=_without_file(vision),
        horizon=options.horizon,
        n_obs_steps=options.n_obs_steps,
        n_action_steps=options.n_action_steps,
        prefix=options.prefix or None,
        observation=training.shapes(),
        action_dim=training.action.shape[-1],
        normaliser={**normaliser.to_config(), **images},
        control_hz=hz,
        task=task,
        command=command,
    )
    policy = (DiffusionPolicy if bins is None else TokenPolicy).from_config(settings)
    for key, one in zip(training.images, _encoders(policy), strict=False):
        assert vision is not None
        if len(one.pool.positions) == 1:  # the softmax of one pixel says the same of every image
            height, width, _ = training.images[key].size
            raise SpecpolicyError(
                f"images '{key}' of {height} x {width} pixels leave policy.vision.kind={vision.kind} a feature "
                "map of one pixel, and no positions to tell: use kind=small, or policy.vision.resize"
            )
        if isinstance(vision, TorchvisionOptions) and vision.weights is not None:
            load_backbone(one.backbone, vision)
    return policy


def image_statistics(vision: VisionOptions) -> Statistics:
    """Return the normalisation of images in [0, 1]: to [-1, 1], or as torchvision's weights expect them."""
    if not isinstance(vision, TorchvisionOptions):
        return Statistics(scale=(2.0,), offset=(-1.0,))
    mean, deviation = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in SEEN_BEFORE)
    return Statistics(scale=(1 / deviation).tolist(), offset=(-mean / deviation).tolist())


def _checked_vision(options: PolicyOptions, training: Sequences) -> VisionOptions | None:
    vision = options.vision
    if vision is None:
        if training.images:
            raise SpecpolicyError(
                f"'{next(iter(training.images))}' is an image, and policy={options.name} sees none: use one that does, "
                "such as policy=unet_image, or name other task.observation_keys"
            )
        return None
    if not training.images:
        raise SpecpolicyError(
            f"policy={options.name} sees images, and there is none among {', '.join(training.observation)}"
        )
    if isinstance(vision, ResNetOptions) and not vision.group_norm:
        raise SpecpolicyError(
            "policy.vision.group_norm=false: batch norms do not go with averaged weights, other projects' checkpoints "
            "alone have them: use true"
        )
    if isinstance(vision, TorchvisionOptions) and vision.weights is None and vision.frozen:
        raise SpecpolicyError("policy.vision.frozen=true: a frozen backbone needs policy.vision.weights=FILE")
    if isinstance(vision, TorchvisionOptions) and vision.weights is None and vision.norm == "frozen_batch":
        raise SpecpolicyError(
            "policy.vision.norm=frozen_batch keeps the statistics of weights: give policy.vision.weights=FILE, or use "
            "norm=group"
        )
    return vision


def _encoders(policy: Policy) -> list[Any]:
    """The image encoders of a policy, one for each camera, or one for all."""
    return list(getattr(policy.encoder, "vision", ()))


def _without_file(vision: VisionOptions | None) -> VisionOptions | None:
    """The options as the checkpoint keeps them, which has the weights itself."""
    return dataclasses.replace(vision, weights=None) if isinstance(vision, TorchvisionOptions) else vision
