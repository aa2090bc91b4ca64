"""Action heads of vision-language-action models (pi0, SmolVLA and their kind), sampled on their ancestral chain.

Such a model reads images and text once a chunk, into a cache (the keys and values of its prefix), and a smaller head
then integrates a flow with it. The head is all that a sampler calls:

    class Head:
        def velocity(self, x, t, cache):   # x (N, H, D), t (N,), the cache of one observation -> (N, H, D)
            ...

Rows are independent, and all N of them share the cache: the head broadcasts it.
"""

import itertools
import numbers
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from specpolicy.denoisers.flow import flow_denoiser
from specpolicy.diffusion import GaussianChain
from specpolicy.engines.base import Denoiser
from specpolicy.errors import SpecpolicyError
from specpolicy.model import Model, device_of, usable_device
from specpolicy.samplers import BoundSampler, Sample, Sampler, Setting
from specpolicy.samplers.base import Generators
from specpolicy.samplers.registry import as_sampler


class VelocityHead(Protocol):
    """See the module."""

    def velocity(self, x: Tensor, t: Tensor, cache: Any) -> Tensor:
        """Return the velocity (N, H, D) at x_t (N, H, D) and times (N,), as the model's own loop asks for it."""
        ...


class HeadSampler:
    """Draws chunks from a head with any sampler of its chain, settled once. Threads may share it.

    Its distribution is that of the ancestral chain with as many steps, or, with `euler`, `midpoint` and `rk4`, of the
    ODE. The two differ.
    """

    def __init__(
        self,
        head: VelocityHead,
        chain: GaussianChain,
        shape: tuple[int, int],
        sampler: str | Sampler = "recycled",
        device: torch.device | str | None = None,
        time_scale: float = 1.0,
    ):
        """Bind the sampler.

        Args:
            head: see `VelocityHead`; where it is a module, a calibration belongs to its weights.
            chain: `GaussianChain.from_flow(times, noise_at=1)` for pi0 and SmolVLA, whose time runs from 1 to 0.
            shape: (H, D) of a chunk.
            sampler: a name, or what `specpolicy.make_sampler` returns.
            device: of the head; by default that of its parameters, or the CPU.
            time_scale: the head's time is multiplied by it.

        Raises:
            SpecpolicyError: an object without `velocity`, a shape that is none, or a sampler that cannot walk the
                chain.
        """
        if not callable(getattr(head, "velocity", None)):
            raise SpecpolicyError(
                f"{type(head).__name__} is no head of a flow model: it has no method velocity(x, t, cache)"
            )
        sizes = tuple(shape) if isinstance(shape, Iterable) else ()
        if len(sizes) != 2 or not all(isinstance(size, numbers.Integral) and size > 0 for size in sizes):
            raise SpecpolicyError(f"shape={shape!r}: expected (H, D), the actions of a chunk and their numbers")
        self.head, self.chain, self.time_scale = head, chain, time_scale
        self._caches: dict[int, Any] = {}
        self._tickets = itertools.count()
        network = head if isinstance(head, nn.Module) else None
        where = usable_device(device) if device is not None else device_of(network)
        model = Model(self._wrapped(lambda cond: self._caches[int(cond[0, 0])]), where, network)
        self.bound = BoundSampler(as_sampler(sampler), Setting(model, chain, torch.Size(sizes)))

    def __call__(
        self, cache: Any, generator: Generators = None, batch: int | None = None, noise: Tensor | None = None
    ) -> Sample:
        """Draw `batch` chunks for one observation.

        Args:
            cache: what the head needs to know of the observation.
            generator: one for the batch, or a sequence of as many as there are chunks.
            batch: chunks of this observation; None: as many as there are in `noise`, or one.
            noise: (batch, H, D) the initial noise; drawn by default.

        Raises:
            SpecpolicyError: noise or generators that do not fit the batch, values that are not finite.
        """
        # Samplers pass a tensor on to the network. It is the number under which the cache lies here, while they draw.
        if batch is None:
            batch = len(noise) if isinstance(noise, Tensor) else 1
        ticket = next(self._tickets)
        self._caches[ticket] = cache
        try:
            return self.bound(batch, torch.tensor([[ticket]]), generator, start=noise)
        finally:
            del self._caches[ticket]

    def denoiser(self, cache: Any) -> Denoiser:
        """Return the denoiser for one observation, as `specpolicy.sample` and `specpolicy.log_probs` take it."""
        return self._wrapped(lambda cond: cache)

    def _wrapped(self, cache_of: Callable[[Any], Any]) -> Denoiser:
        def velocity(x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
            return self.head.velocity(x, t, cache_of(cond))

        found: Denoiser = flow_denoiser(velocity, self.chain, self.time_scale)
        return found
