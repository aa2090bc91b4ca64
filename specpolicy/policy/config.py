"""`PolicyConfig`: the contents of a checkpoint's config.json as one checked value. A new field is one new line.

The loaders of other projects' checkpoints and the trainer make the same value, and a policy is built from it alone.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from specpolicy.diffusion import ChainOptions, FlowOptions, MIPOptions
from specpolicy.errors import SpecpolicyError
from specpolicy.networks import DenoiserOptions, LanguageOptions, MaskedTransformerOptions, VisionOptions
from specpolicy.networks.vision_options import MOST_PIXELS
from specpolicy.parsing import check_ranges, parse, plain, shown
from specpolicy.policy.normaliser import Statistics
from specpolicy.rates import parse_hz
from specpolicy.tokens.tokeniser import Bins, TokenOptions

NetworkOptions = DenoiserOptions | MaskedTransformerOptions
# Of each objective of a policy with a chain, the part of the options that is its own, and their kind.
OBJECTIVES = {"diffusion": ("chain", ChainOptions), "flow": ("flow", FlowOptions), "mip": ("mip", MIPOptions)}
LONGEST, WIDEST = 4096, 65536  # bounds on a horizon and a dimension, far beyond any real policy
SIX = 6  # numbers of a rotation in a network's plan


@dataclass(frozen=True)
class PolicyOptions:
    """Options of a policy before training: configs/policy/NAME.yaml. Exactly one of `chain` and `tokens` is set.

    `objective`: a policy with a chain learns to denoise, with the options `chain`, the velocity of a flow, with the
    options `flow`, or two regressions, with the options `mip`.
    """

    network: NetworkOptions
    horizon: int
    n_obs_steps: int
    n_action_steps: int
    chain: ChainOptions | None = None
    tokens: TokenOptions | None = None
    vision: VisionOptions | None = None
    prefix: int = 0
    name: str = "policy"
    objective: Literal["diffusion", "flow", "mip"] = "diffusion"
    flow: FlowOptions = field(default_factory=FlowOptions)
    mip: MIPOptions = field(default_factory=MIPOptions)

    def __post_init__(self) -> None:
        check_ranges(self, horizon=(1, LONGEST), n_obs_steps=(1, LONGEST), n_action_steps=(1, LONGEST))
        check_ranges(self, prefix=(0, LONGEST))
        _check_kind(self.network, chain=self.chain, tokens=self.tokens)
        if self.objective != "diffusion" and self.tokens is not None:
            raise SpecpolicyError(
                f"objective={self.objective}: a policy of action tokens learns to fill in tokens, use another one"
            )


@dataclass(frozen=True)
class PolicyConfig:
    """Everything that a policy is built from, except its weights.

    Attributes:
        network: its kind and options.
        observation: the dimension of each key, or (channels, height, width) of an image, in the order of the condition.
        action_dim: of the network's plan.
        horizon, n_obs_steps, n_action_steps: control steps of a chunk, frames seen, actions executed of a chunk.
        normaliser: of each key of the observation, and of "action".
        first_action: entry of a chunk that is executed first; None: the newest frame's, n_obs_steps - 1.
        chain: of a diffusion policy.
        flow: of a flow policy.
        mip: of a minimal iterative policy.
        tokens: of a policy of action tokens. Exactly one of `chain`, `flow`, `mip` and `tokens` is set.
        conditioning: how the network receives the observation; None: the first way that its kind offers.
        vision: encoders of images, if there are any.
        language: encoder of a text, whose tokens are a key of the observation, if there is one.
        prefix: most committed actions that the network has learnt to continue, see `specpolicy.denoisers.prefix`; None:
            none.
        rotations: {index: conversion} of six numbers of an action that are executed as three.
        control_hz: control steps per second that the actions are made for; None if unknown.
        task: the task of the training, a note; where it has an `id`, verbs play that environment.
        command, source: notes on its origin.
    """

    network: NetworkOptions
    observation: Mapping[str, int | tuple[int, int, int]]
    action_dim: int
    horizon: int
    n_obs_steps: int
    n_action_steps: int
    normaliser: Mapping[str, Statistics]
    first_action: int | None = None
    chain: ChainOptions | None = None
    flow: FlowOptions | None = None
    mip: MIPOptions | None = None
    tokens: Bins | None = None
    conditioning: str | None = None
    vision: VisionOptions | None = None
    language: LanguageOptions | None = None
    prefix: int | None = None
    rotations: Mapping[int, Literal["axis_angle", "euler_xyz"]] = field(default_factory=dict)
    control_hz: float | None = None
    task: Mapping[str, Any] | None = None
    command: str | None = None
    source: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        check_ranges(self, action_dim=(1, WIDEST), horizon=(1, LONGEST), n_obs_steps=(1, LONGEST))
        check_ranges(self, n_action_steps=(1, LONGEST), first_action=(0, LONGEST), prefix=(0, LONGEST))
        parse_hz(self.control_hz, "control_hz")
        _check_kind(self.network, chain=self.chain, flow=self.flow, mip=self.mip, tokens=self.tokens)
        self._check_observation()
        self._check_normaliser()
        self._check_rotations()
        if self.first + self.n_action_steps > self.horizon:
            raise SpecpolicyError(
                f"horizon={self.horizon} is too short for n_obs_steps={self.n_obs_steps} and "
                f"n_action_steps={self.n_action_steps}: it must be at least {self.first + self.n_action_steps}"
            )
        if isinstance(self.network, MaskedTransformerOptions):
            for name in ("conditioning", "vision", "language"):
                if getattr(self, name) is not None:
                    raise SpecpolicyError(f"{name}: a policy of action tokens has none")
            if self.rotations:
                raise SpecpolicyError("rotations: a policy of action tokens has none")
            if self.prefix:
                raise SpecpolicyError("prefix: a policy of action tokens has none, it continues any tokens")
            return
        known = self.network.conditionings
        if self.told not in known:
            raise SpecpolicyError(
                f"a {self.network.kind} network has no conditioning {shown(self.told)}: use one of {', '.join(known)}"
            )
        if self.told in ("local", "inpainting") and self.n_obs_steps > self.horizon:
            raise SpecpolicyError(
                f"n_obs_steps={self.n_obs_steps} frames do not fit into a horizon of {self.horizon}, where "
                f"{self.told} conditioning puts them"
            )
        if self.chain is None and self.told in ("local", "inpainting"):
            raise SpecpolicyError(f"{self.objective}: {self.told} conditioning is of diffusion policies alone")
        self._check_prefix()

    @classmethod
    def parse(cls, config: "PolicyConfig | Mapping[str, Any]", where: str | Path = "the policy") -> "PolicyConfig":
        """Parse the configuration from a mapping with these fields.

        Raises:
            SpecpolicyError: a field that is unknown, missing, or of another type, or values that do not fit together.
        """
        return parse(cls, config, where)

    @property
    def objective(self) -> str:
        """What it learns, as in `PolicyOptions`; "tokens" for a policy of action tokens."""
        others = {"flow": self.flow, "mip": self.mip, "tokens": self.tokens}
        return next((name for name, options in others.items() if options is not None), "diffusion")

    @property
    def told(self) -> str:
        """`conditioning`, or its default in place of None."""
        if self.conditioning is not None:
            return self.conditioning
        return "tokens" if isinstance(self.network, MaskedTransformerOptions) else self.network.conditionings[0]

    @property
    def first(self) -> int:
        """`first_action`, or its default in place of None."""
        return self.n_obs_steps - 1 if self.first_action is None else self.first_action

    @property
    def cameras(self) -> tuple[str, ...]:
        """The keys that are images."""
        return tuple(key for key, shape in self.observation.items() if not isinstance(shape, int))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for config.json, without fields at their defaults."""
        return plain(self)

    def with_network(self, options: Mapping[str, Any]) -> "PolicyConfig":
        """Return a copy with some other options of the network, or with a network of another `kind`."""
        if options.get("kind", self.network.kind) == self.network.kind:
            network = parse(type(self.network), {**plain(self.network), **options}, "network")  # type: ignore[arg-type]
            return dataclasses.replace(self, network=network)
        other: Any = parse(DenoiserOptions, options, "network")  # type: ignore[arg-type]
        return dataclasses.replace(self, network=other, conditioning=None)

    def _check_observation(self) -> None:
        if not self.observation:
            raise SpecpolicyError("observation has no key: a policy sees something")
        if "action" in self.observation:
            raise SpecpolicyError("observation has the key 'action', which names the actions: call it otherwise")
        for key, shape in self.observation.items():
            sides = (shape,) if isinstance(shape, int) else shape
            most = WIDEST if isinstance(shape, int) else MOST_PIXELS
            if not all(1 <= side <= most for side in sides):
                raise SpecpolicyError(f"observation '{key}' has the shape {list(sides)}: sizes go from 1 to {most}")
        if self.cameras and self.vision is None:
            raise SpecpolicyError(f"vision is missing: it says how the images '{self.cameras[0]}' are encoded")
        if self.vision is not None and not self.cameras:
            raise SpecpolicyError("vision is there, but no image among the observations: leave it out")
        if self.language is not None:
            length = self.observation.get(self.language.key)
            if not isinstance(length, int) or length > self.language.positions:
                raise SpecpolicyError(
                    f"language: the observation must have the tokens '{self.language.key}', at most "
                    f"{self.language.positions}"
                )

    def _check_normaliser(self) -> None:
        shapes = {**self.observation, "action": self.action_dim}
        for key in shapes:
            if key not in self.normaliser:
                raise SpecpolicyError(f"the normaliser lacks {shown(key)}")
        for key, statistics in self.normaliser.items():
            if key not in shapes:
                raise SpecpolicyError(f"the normaliser has {shown(key)}, which the policy neither sees nor plans")
            statistics.check(key, shapes[key])

    def _check_prefix(self) -> None:
        if not self.prefix:
            return
        if self.chain is None:
            raise SpecpolicyError(
                f"prefix={self.prefix}: {self.objective} policies learn to continue no actions, use 0"
            )
        if self.told not in ("global", "tokens"):
            raise SpecpolicyError(f"prefix={self.prefix}: {self.told} conditioning leaves no place for it, use 0")
        if self.rotations:
            raise SpecpolicyError(f"prefix={self.prefix}: actions whose rotations are converted have none, use 0")
        if self.first + self.prefix >= self.horizon:
            raise SpecpolicyError(
                f"prefix={self.prefix}: of {self.horizon} actions from entry {self.first} on at most "
                f"{self.horizon - self.first - 1} can be committed, so that one is left to plan"
            )

    def _check_rotations(self) -> None:
        end = 0
        for start in sorted(self.rotations):
            if not end <= start <= self.action_dim - SIX:
                raise SpecpolicyError(
                    f"rotations: entries {start} to {start + SIX - 1} of an action of {self.action_dim} numbers do not "
                    "exist, or belong to the rotation before"
                )
            end = start + SIX


def _check_kind(network: NetworkOptions, **kinds: object) -> None:
    """Raise unless one of the options is there and the network is of its kind."""
    there = [name for name, one in kinds.items() if one is not None]
    if not there:
        raise SpecpolicyError(
            "chain is missing (of a diffusion policy; flow, of a flow policy; mip, of a minimal iterative policy; "
            "tokens, of a policy of action tokens)"
        )
    if len(there) > 1:
        raise SpecpolicyError(f"{' and '.join(there)} are both there: leave one out")
    if isinstance(network, MaskedTransformerOptions) != (there[0] == "tokens"):
        wanted = "a masked_transformer" if there[0] == "tokens" else "another network"
        raise SpecpolicyError(
            f"network.kind is '{network.kind}': a policy with {'a ' * (there[0] != 'tokens')}{there[0]} has {wanted}"
        )
