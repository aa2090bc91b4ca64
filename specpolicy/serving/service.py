"""Services: they plan chunks for the histories of several clients at once."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from specpolicy.committed import Committed
from specpolicy.control.chunk import Chunk, History
from specpolicy.errors import SpecpolicyError
from specpolicy.serving.frames import DTYPE
from specpolicy.serving.protocol import RESERVED, Metadata


class Service(Protocol):
    """Plans chunks. `begin` is called from the event loop and must be quick, `plan` from a separate thread."""

    n_obs_steps: int
    shapes: Mapping[str, tuple[int, ...]]  # of one frame of each key
    metadata: Metadata

    def begin(self, seed: int) -> Any:
        """Return the random stream of an episode."""

    def plan(self, histories: Sequence[History], streams: Sequence[Any]) -> list[Chunk]:
        """Return one chunk for each history of `n_obs_steps` frames, drawn with its own stream.

        With an argument `committed`, one `Committed` or None for each, if the metadata say that it `continues`.
        """
        ...


class PolicyService:
    """Plans with a policy and a sampler. Requests that wait together are sampled together, each with its own noises.

    A client's chunks do not depend on other clients, up to rounding.

    Args:
        policy: from `specpolicy.load_policy`, with an engine or without.
        sampler: a name, or a result of `specpolicy.make_sampler`; None: the policy's best.
        about: more fields for the metadata.
    """

    def __init__(self, policy: Any, sampler: Any = None, about: Mapping[str, Any] | None = None):
        self.policy, self._sampler = policy, policy.sampler(sampler)
        self.n_obs_steps = policy.n_obs_steps
        self.shapes: Mapping[str, tuple[int, ...]] = {
            key: (shape,) if isinstance(shape, int) else tuple(shape) for key, shape in policy.encoder.shapes.items()
        }
        reserved = [key for key in self.shapes if key in RESERVED]
        if reserved:
            raise SpecpolicyError(f"a policy that observes '{reserved[0]}' cannot be served: that word means another")
        more = {"sampler": self._sampler.name, **(about or {})}
        self.metadata = Metadata(
            policy.n_obs_steps,
            policy.n_action_steps,
            self.shapes,
            policy.action_dim,
            more,
            getattr(policy, "control_hz", None),
            continues=bool(policy.ways),
            ways=tuple(policy.ways),
        )

    def begin(self, seed: int) -> torch.Generator:
        """See `Service.begin`. A CPU generator gives the same noises on every device."""
        return torch.Generator().manual_seed(seed)

    def plan(
        self,
        histories: Sequence[History],
        streams: Sequence[torch.Generator],
        committed: Sequence[Committed | None] | None = None,
    ) -> list[Chunk]:
        """See `Service.plan`. The times of network and encoder are those of the whole batch."""
        start = time.perf_counter()
        observation = {key: np.stack([history[key] for history in histories]) for key in self.shapes}
        out = self._sampler(observation, generator=list(streams), committed=committed)
        actions = out.actions[:, self.policy.first_action :].cpu().numpy()  # the copy waits for a GPU to finish
        seconds = time.perf_counter() - start
        calls, rows = out.stats.calls.tolist(), out.stats.rows.tolist()
        network, encode = float(out.stats.network_seconds), float(out.stats.encode_seconds)
        return [Chunk(actions[i], seconds, network, int(calls[i]), int(rows[i]), encode) for i in range(len(histories))]

    def warm_up(self, most: int) -> None:
        """Plan and discard chunks, alone and in a batch of `most`, so that the first client need not wait."""
        nothing = {key: np.zeros((self.n_obs_steps, *shape), DTYPE) for key, shape in self.shapes.items()}
        for count in sorted({1, most}):
            self.plan([nothing] * count, [self.begin(0) for _ in range(count)])
