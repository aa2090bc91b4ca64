"""Networks in two parts: features of timestep and condition are computed outside the engine, and cached."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from specpolicy.engines.base import Denoiser, Workload
from specpolicy.errors import SpecpolicyError
from specpolicy.fingerprints import state_of

MOST = 128  # conditions whose part is remembered


class SplitNetwork(Protocol):
    """A denoiser (x (N, H, D), features (N, F)) -> (N, H, D), features being a sum of two parts.

    A network that can be split has a method `split_denoiser(horizon, rows)`. It returns this form, arranged for one row
    or for several, or None.
    """

    def time_features(self, timestep: Tensor) -> Tensor:
        """(N,) -> (N, F)."""
        ...

    def condition_features(self, cond: Tensor | None) -> Tensor:
        """(M, ...) -> (M, F), or (1, F) without a condition."""
        ...

    def __call__(self, x: Tensor, features: Tensor) -> Tensor: ...


def split_network(workload: Workload, rows: int) -> Any:
    """Return the workload's network in two parts (`SplitNetwork`, a module), arranged for this number of rows, or
    None."""
    split = getattr(workload.denoiser, "split_denoiser", None)
    return None if split is None else split(workload.chunk_shape[0], rows)


class ConditionFeatures:
    """The part of the condition, computed once for each condition, in whichever rows of whichever calls it is.

    On the CPU conditions are known by their bytes. Elsewhere nothing is remembered, because to compare numbers is to
    wait for the device; rows that visibly share a condition are computed as one. Threads may share it.
    """

    def __init__(self, network: SplitNetwork, most: int = MOST, before: Callable[[], None] = lambda: None):
        """`before`: called before a condition is computed."""
        self._network, self.most, self._before = network, most, before
        self._known: dict[bytes, Tensor] = {}  # replaced, never changed; the oldest first

    def __call__(self, cond: Tensor | None) -> Tensor:
        """Return (N, F) for conditions (N, ...), or (1, F) for rows that share one, or for None."""
        if cond is None:
            return self._of([b""], lambda rows: self._network.condition_features(None))
        if len(cond) > 1 and cond.stride(0) == 0:
            cond = cond[:1]
        if cond.device.type != "cpu":
            return self._network.condition_features(cond)
        names = [row.numpy().tobytes() for row in cond.detach()]
        return self._of(names, lambda rows: self._network.condition_features(cond[rows]))

    def _of(self, names: list[bytes], make: Callable[[list[int]], Tensor]) -> Tensor:
        """Return the parts of conditions by name; `make` computes those in some of the rows."""
        rows: dict[bytes, int] = {}
        for row, name in enumerate(names):
            rows.setdefault(name, row)
        known = self._known
        new = [name for name in rows if name not in known]
        if new:
            self._before()
            made = dict(zip(new, make([rows[name] for name in new]), strict=True))
            others = [name for name in known if name not in rows]
            room = max(self.most - len(rows), 0)
            kept = others[max(len(others) - room, 0) :] + [name for name in rows if name in known]
            known = self._known = {name: known[name] for name in kept} | made
        if len(rows) == 1:
            return known[names[0]][None]
        place = {name: index for index, name in enumerate(rows)}
        return torch.stack([known[name] for name in rows])[[place[name] for name in names]]


class Features:
    """Features for a network in two parts: of whole timesteps from a table, of a condition computed once."""

    def __init__(self, network: SplitNetwork, workload: Workload | None = None):
        """`workload`: what an engine is made for; None: no table, for a network whose weights may change later."""
        self._network, self._of_condition = network, ConditionFeatures(network, before=self._check)
        self._table: Tensor | None = None
        self._state = self._now()
        if workload is not None:
            self._table = network.time_features(torch.arange(workload.train_steps, device=workload.device))
            self.size = self._table.shape[1]

    @property
    def stale(self) -> bool:
        """Whether the network's weights have changed since the table was made."""
        return self._table is not None and self._now() != self._state

    def _now(self) -> tuple[int, ...]:
        return state_of([self._network]) if isinstance(self._network, torch.nn.Module) else ()

    def _check(self) -> None:
        if self.stale:  # old features and new ones would make a network that never was
            raise SpecpolicyError("the network's weights have changed since this engine was made: make it anew")

    @torch.inference_mode()
    def write(self, t: Tensor, cond: Tensor | None, out: Tensor | None = None) -> Tensor:
        """Return the features (N, F) of timesteps (N,) and conditions (N, ...), written into `out` if given."""
        of_time = self._network.time_features(t) if self._table is None or t.is_floating_point() else self._table[t]
        return torch.add(of_time, self._of_condition(cond), out=out)


class InParts:
    """A network in two parts as one denoiser of torch, which remembers what it computed of each condition.

    `workload`: see `Features`. `run`: takes the place of the split network's own call, such as its compiled form.
    """

    def __init__(self, split: Any, workload: Workload | None = None, run: Callable[..., Tensor] | None = None):
        self._split, self._workload, self._run = split, workload, split if run is None else run
        self._features = Features(split, workload)

    def __call__(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        """See `Denoiser`."""
        if self._features.stale:  # the split network's own call has the new weights
            with torch.inference_mode(False), torch.no_grad():
                self._features = Features(self._split, self._workload)
        return self._run(x, self._features.write(t, cond))


def gains_in_torch(denoiser: object) -> bool:
    """Whether a network in two parts is faster in torch, too: where most of its weights see the condition alone."""
    return isinstance(denoiser, torch.nn.Module) and bool(getattr(denoiser, "costly_condition", False))


def in_parts(
    network: Denoiser, workload: Workload, faster: Callable[[Any], Callable[..., Tensor]] | None = None
) -> Denoiser | None:
    """Return a network, such as a workload's in its precision, in two parts as one denoiser of torch; None where
    nothing is gained by it.

    `faster`: makes a faster form of the split network.
    """
    split = split_network(replace(workload, denoiser=network), workload.max_rows) if gains_in_torch(network) else None
    if split is None:
        return None
    with torch.inference_mode(False), torch.no_grad():
        return InParts(split, workload, None if faster is None else faster(split))
