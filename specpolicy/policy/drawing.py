"""How a policy draws chunks: from observations to actions, also given actions that are executed meanwhile."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from specpolicy.committed import PREDICTED, Committed, rows_of
from specpolicy.errors import SpecpolicyError
from specpolicy.policy.observations import Observation, checked_frames
from specpolicy.policy.prediction import advanced, looks_ahead, moved
from specpolicy.samplers import Sample
from specpolicy.samplers.base import Generators
from specpolicy.tuning import now

if TYPE_CHECKING:
    from specpolicy.policy.base import Policy
    from specpolicy.policy.sampler import Bound


@torch.inference_mode()
def draw(
    policy: Policy,
    bound: Bound,
    observation: Observation,
    generator: Generators,
    return_states: bool = False,
    committed: Committed | Sequence[Committed | None] | None = None,
) -> Sample:
    """Draw chunks with a sampler that is bound to the policy; the other arguments are those of `Policy.predict`."""
    if looks_ahead(committed):
        return _draw_ahead(policy, bound, observation, generator, return_states, committed)
    begin = time.perf_counter()
    cond = policy.encode(observation)
    seconds = now(policy.device) - begin
    rows = rows_of(committed, len(cond), policy.action_dim)
    way = next((one.way for one in rows if one is not None), None)
    if way is None:
        out = bound(len(cond), cond, generator, return_states)
    else:
        policy.check_way(way)
        out = policy.draw_given(bound, cond, rows, generator, return_states)
    stats = dataclasses.replace(out.stats, seconds=out.stats.seconds + seconds, encode_seconds=seconds)
    actions = policy.actions_of(out.actions)
    return dataclasses.replace(out, actions=_as_told(actions, rows, policy.first_action), stats=stats)


def _as_told(actions: Tensor, rows: Sequence[Committed | None], first: int) -> Tensor:
    """Return chunks (B, H, D) with the committed actions as they are executed: a chain draws them within its range, a
    decoder as tokens."""
    if all(one is None for one in rows):
        return actions
    found = actions.clone()
    for row, one in enumerate(rows):
        if one is not None:
            count = min(one.count, actions.shape[1] - first)
            found[row, first : first + count] = torch.as_tensor(one.actions[:count]).to(actions)
    return found


def _draw_ahead(
    policy: Policy, bound: Bound, observation: Observation, generator: Generators, return_states: bool, committed: Any
) -> Sample:
    """Draw for the observations that are predicted for the step after what is committed."""
    policy.check_way(PREDICTED)
    if return_states:
        raise SpecpolicyError(
            f"return_states: a chunk of stitching={PREDICTED} begins with actions that no state holds: use another way"
        )
    assert policy.predictor is not None
    shapes = {key: policy.frame_shape(key) for key in policy.observation_keys}
    key = policy.observation_keys[0]
    rows = rows_of(committed, len(checked_frames(key, observation[key], shapes[key])), policy.action_dim)
    begin = time.perf_counter()
    ahead = advanced(policy.predictor, observation, shapes, rows)
    seconds = time.perf_counter() - begin
    out = draw(policy, bound, ahead, generator)
    actions = moved(out.actions, rows, policy.first_action, policy.predictor.options.steps)
    actions = _as_told(actions, rows, policy.first_action)
    stats = dataclasses.replace(out.stats, seconds=out.stats.seconds + seconds)
    return dataclasses.replace(out, actions=actions, stats=stats)
