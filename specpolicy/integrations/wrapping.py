"""Shared by the `wrap` functions: the user's own policy object keeps its interface and samples through specpolicy."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from specpolicy.conditioning import paint_in, x0_table
from specpolicy.denoisers.flow import flow_denoiser
from specpolicy.diffusion import ChainOptions, FlowOptions, FlowProcess, GaussianChain
from specpolicy.errors import SpecpolicyError
from specpolicy.integrations.names import UNCHANGED, Rules, renamed, unwrapped
from specpolicy.integrations.schedulers import chain_config
from specpolicy.model import Model
from specpolicy.parsing import parse, shown
from specpolicy.parsing.tensors import prefixed
from specpolicy.samplers import BoundSampler, Calibration, Sample, Sampler, Setting
from specpolicy.samplers.base import Generators
from specpolicy.samplers.registry import as_sampler

STEP_OPTIONS = ("eta", "use_clipped_model_output")
Network = Callable[..., Tensor]  # (x, t, name=condition, ...) -> output


class Packed:
    """Several tensors (B, ...) as one (B, F), because a sampler expands and selects the rows of a single condition."""

    def __init__(self, parts: dict[str, Tensor], dtype: torch.dtype):
        self._shapes = {name: part.shape[1:] for name, part in parts.items()}
        flat = [part.flatten(start_dim=1).to(dtype) for part in parts.values()]
        self.tensor = torch.cat(flat, dim=1) if flat else None

    def split(self, packed: Tensor | None) -> dict[str, Tensor]:
        """Return the tensors of some rows (N, ...)."""
        if packed is None:
            return {}
        pieces = packed.split([shape.numel() for shape in self._shapes.values()], dim=1)
        return {
            name: piece.unflatten(1, shape) for (name, shape), piece in zip(self._shapes.items(), pieces, strict=True)
        }


class Renamed(nn.Module):
    """A network whose weights have the names of a policy that was loaded: fingerprints of calibrations cover names."""

    def __init__(self, network: nn.Module, rules: Rules, prefix: str):
        super().__init__()
        self.rules, self.prefix = rules, prefix
        self._network = (network,)  # in a tuple, as it is no part of this one

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Return the weights under our names."""
        ours, _ = renamed(unwrapped(self._network[0].state_dict()), self.rules)
        return prefixed(ours, self.prefix)

    def of(self, network: object, prefix: str) -> bool:
        """Whether it stands for that network in that place."""
        return self._network[0] is network and self.prefix == prefix


class Drawer:
    """Draws chunks from a user's network and diffusers scheduler; remembers the cost of the last one."""

    def __init__(
        self,
        sampler: str | Sampler,
        generator: Generators,
        calibration: Calibration | None = None,
        rules: Rules = UNCHANGED,
    ):
        """Settle what all draws share.

        Args:
            sampler: a name, or a result of `specpolicy.make_sampler`.
            generator: of all draws; torch's global one if None.
            calibration: of the network.
            rules: which give the names of the network's weights as a loaded policy has them.

        Raises:
            SpecpolicyError: no sampler, or no calibration.
        """
        self.sampler = as_sampler(sampler)
        if not isinstance(calibration, Calibration | None):
            raise SpecpolicyError(
                f"calibration={shown(calibration)}: give what specpolicy.calibrate(policy, observations) returns"
            )
        self.generator, self.calibration, self.rules = generator, calibration, rules
        self._chains: dict[Any, GaussianChain] = {}
        self._renamed: Renamed | None = None

    def chain(self, scheduler: Any, steps: int | None, **step_options: Any) -> GaussianChain:
        """Return the chain of a scheduler with that many inference steps; options as for its `step`.

        Raises:
            SpecpolicyError: a scheduler, a setting of it or an option that we do not reproduce.
        """
        strange = [name for name in step_options if name not in STEP_OPTIONS]
        if strange:
            raise SpecpolicyError(f"the option '{strange[0]}' of the scheduler's step is not supported")
        eta = step_options.get("eta", 0.0)
        reuse_epsilon = not step_options.get("use_clipped_model_output", False)
        config = chain_config(type(scheduler).__name__, dict(scheduler.config), steps, eta, reuse_epsilon)
        key = str(config)  # a user may change any of it between two chunks
        if key not in self._chains:
            self._chains = {key: parse(ChainOptions, config, "the scheduler").make()}
        chain = self._chains[key]
        table = getattr(scheduler, "alphas_cumprod", None)  # if somebody has changed it, the settings do not tell
        if table is not None and not same_schedule(chain.process.alpha_bar, table):
            raise SpecpolicyError(f"the alphas_cumprod of the {type(scheduler).__name__} are not those of its settings")
        if float(getattr(scheduler, "final_alpha_cumprod", 1.0)) != 1:
            kind = type(scheduler).__name__
            raise SpecpolicyError(f"the final_alpha_cumprod of the {kind} is not 1: its last step would keep noise")
        return chain

    def flow_chain(self, options: FlowOptions) -> GaussianChain:
        """Return the ancestral chain of a flow model. `draw` then takes the network that predicts its velocity."""
        if options not in self._chains:
            self._chains = {options: options.make()}
        return self._chains[options]

    def check(self, chain: GaussianChain, shape: tuple[int, int], like: Tensor) -> None:
        """Raise where the sampler cannot walk this chain: now, not when a robot waits for the first chunk."""

        def never(x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
            raise AssertionError("nothing is drawn here")

        called = flow_denoiser(never, chain) if isinstance(chain.process, FlowProcess) else never
        BoundSampler(self.sampler, Setting(Model(called, like.device), chain, torch.Size(shape)))

    def draw(
        self,
        network: Network,
        chain: GaussianChain,
        shape: tuple[int, int, int],
        conditions: dict[str, Tensor | None],
        like: Tensor,
        *,
        known: tuple[Tensor, Tensor] | None = None,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
        sampler: Sampler | None = None,
    ) -> Sample:
        """Draw chunks (B, H, D) on the device and in the type of `like`, which is that of the network.

        `conditions`: passed to the network by name, (B, ...) each. `known`: (values, mask), (B, H, D) each, of a policy
        that inpaints. `generator`, `sampler`: in place of this object's own. `noise`: the initial one.
        """
        parts = {name: part for name, part in conditions.items() if part is not None}
        if known is not None and bool(known[1].any()):
            parts |= {"_values": known[0], "_mask": known[1]}
        packed = Packed(parts, like.dtype)
        table = x0_table(chain.process).to(like.device)

        def called_as_itself(x: Tensor, t: Tensor, **found: Tensor) -> Tensor:
            return network(x.to(like.dtype), t, **found)

        def denoiser(x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
            found = packed.split(cond)
            values, mask = found.pop("_values", None), found.pop("_mask", None)
            if values is None or mask is None:
                return called_as_itself(x, t, **found)
            return paint_in(functools.partial(called_as_itself, **found), x, t, values, mask.bool(), table)

        # The set of conditions may change from chunk to chunk, and the denoiser with it.
        flow = isinstance(chain.process, FlowProcess)
        called = flow_denoiser(denoiser, chain) if flow else denoiser
        model = Model(called, like.device, self._behind(network, "network." if flow else ""))
        return self.draw_by(model, chain, shape, packed.tensor, like, generator=generator, noise=noise, sampler=sampler)

    def _behind(self, network: object, prefix: str) -> object:
        """Return what stands for the network where a calibration is compared with it, the same one for each chunk."""
        if not isinstance(network, nn.Module):
            return network
        if self._renamed is None or not self._renamed.of(network, prefix):
            self._renamed = Renamed(network, self.rules, prefix)
        return self._renamed

    def draw_by(
        self,
        model: Model,
        chain: GaussianChain,
        shape: tuple[int, int, int],
        cond: Tensor | None,
        like: Tensor,
        *,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
        sampler: Sampler | None = None,
    ) -> Sample:
        """Draw chunks (B, H, D) from a model that takes conditions (B, ...) as they are; see `draw`."""
        # Of a policy in half precision, too: in that, states would have another distribution.
        exact = torch.promote_types(like.dtype, torch.float32)
        setting = Setting(model, chain, torch.Size(shape[1:]), self.calibration, dtype=exact)
        source = self.generator if generator is None else generator
        out = BoundSampler(sampler or self.sampler, setting)(shape[0], cond, source, start=noise)
        # An ordinary tensor: tensors of inference mode refuse changes in place.
        return dataclasses.replace(out, actions=out.actions.to(like.dtype, copy=True))


def same_schedule(ours: Tensor, theirs: Tensor) -> bool:
    """Whether two tables of cumulated alphas are equal, within diffusers' float32."""
    theirs = theirs.detach().cpu().double()
    return ours.shape == theirs.shape and torch.allclose(ours, theirs, rtol=5e-3, atol=1e-8)


def require(policy: Any, names: tuple[str, ...], what: str) -> None:
    """Raise a clear error if an object lacks an attribute that a policy of its project has."""
    missing = [name for name in names if not hasattr(policy, name)]
    if missing:
        raise SpecpolicyError(f"cannot wrap a {type(policy).__name__}: it has no '{missing[0]}', expected {what}")
