"""A planner made of a policy; it uses the policy's interface alone."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

from specpolicy.committed import Committed, takes_committed
from specpolicy.control.chunk import Chunk, History, Planner
from specpolicy.control.execution import Execution
from specpolicy.errors import SpecpolicyError

if TYPE_CHECKING:
    import torch


class Policy(Protocol):
    """The part of a policy that a planner needs; `specpolicy.load_policy` returns one."""

    n_obs_steps: int
    n_action_steps: int
    first_action: int

    @property
    def observation_keys(self) -> Sequence[str]:
        """Keys of the observation."""
        ...

    def predict(self, observation: Mapping[str, Any], sampler: Any, generator: torch.Generator) -> Any:
        """Return a sample: `actions` (1, H, D), entry `first_action` for the newest frame, and `stats`.

        With an argument `committed`: given that these actions are executed, see `Committed`.
        """
        ...


class PolicyPlanner:
    """Plans with a policy and a sampler. One random stream per episode serves all of its chunks, batch size 1.

    Args:
        policy: see `Policy`.
        sampler: anything the policy's `predict` takes: a name or a sampler; None: the policy's best.
    """

    def __init__(self, policy: Policy, sampler: Any = None):
        import torch  # imported here, because other planners, such as a remote policy's, do not need it

        self.policy, self.sampler = policy, sampler
        self.n_obs_steps, self.n_action_steps = policy.n_obs_steps, policy.n_action_steps
        self.pictures = tuple(policy.observation_keys)  # of what it observes, it looks at all
        self.control_hz: float | None = getattr(policy, "control_hz", None)
        self.continues = takes_committed(policy.predict) and bool(getattr(policy, "ways", True))
        # A CPU generator gives the same noises on every device.
        self._generator = torch.Generator()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without the random stream, which not every torch can pickle; `reset` begins a new one anyway."""
        return PolicyPlanner, (self.policy, self.sampler)

    def reset(self, seed: int) -> None:
        """See `Planner.reset`. An episode that begins like another one takes as long: its first frames are encoded."""
        if (forget := getattr(self.policy, "forget_frames", None)) is not None:  # a served policy has none
            forget()
        self._generator.manual_seed(seed)

    def check_way(self, way: str) -> None:
        """See `Planner`."""
        if (check := getattr(self.policy, "check_way", None)) is not None:
            check(way)

    def plan(self, history: History, committed: Committed | None = None) -> Chunk:
        """See `Planner.plan`."""
        start = time.perf_counter()
        missing = [key for key in self.policy.observation_keys if key not in history]
        if missing:
            raise SpecpolicyError(
                f"the policy observes '{missing[0]}', which is not observed here (there is {', '.join(history)})"
            )
        observation = {key: history[key] for key in self.policy.observation_keys}
        given: dict[str, Any] = {} if committed is None else {"committed": committed}
        out = self.policy.predict(observation, sampler=self.sampler, generator=self._generator, **given)
        actions = out.actions[0, self.policy.first_action :].cpu().numpy()  # the copy waits for a GPU to finish
        return Chunk(
            actions=actions,
            seconds=time.perf_counter() - start,
            network_seconds=float(out.stats.network_seconds),
            calls=int(out.stats.calls[0]),
            rows=int(out.stats.rows[0]),
            encode_seconds=float(out.stats.encode_seconds),
        )


def check_stitching(planner: Planner, execution: Execution) -> None:
    """Raise before the robot moves if the planner says that it cannot continue actions as wanted."""
    if execution.continues and (check := getattr(planner, "check_way", None)) is not None:
        check(execution.stitching)


def as_planner(policy: Planner | Policy, sampler: Any = None) -> Planner:
    """Return `policy` itself if it plans, else a planner that samples from it with `sampler`."""
    if hasattr(policy, "plan"):
        return cast(Planner, policy)
    if hasattr(policy, "predict"):
        return PolicyPlanner(policy, sampler)
    raise SpecpolicyError(
        f"{type(policy).__name__} is no policy: it needs `predict` (specpolicy.load_policy) or `reset` and `plan`"
    )
