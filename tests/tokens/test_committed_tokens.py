"""Committed actions are tokens that are known from the start (DiscreteRTC), with every decoder, whatever is drafted."""

import numpy as np
import pytest
import torch

from specpolicy import Committed, SpecpolicyError, make_sampler
from specpolicy.tokens.batches import EqualBatches

DECODERS = {
    "confidence": (dict(drafter="graph", drafts=8), dict(drafter="chain", drafts=4)),
    "cosine": (dict(drafter="graph", drafts=8), dict(drafts=12, keep=4)),
    "threshold": (dict(drafter="graph", drafts=8), dict(drafter="chain", drafts=4)),
    "random_order": (dict(drafts=4), dict(drafter="graph", drafts=8)),
    "raster": (dict(drafts=12), dict(drafter="chain", drafts=4)),
}
ROWS = 12
ACTIONS = np.stack([np.linspace(-1.9, 1.9, 3), np.linspace(0.2, 7.0, 3), np.linspace(-0.9, 0.9, 3)], axis=1)


def seeds():
    return [torch.Generator().manual_seed(seed) for seed in range(ROWS)]


def given():
    """Nothing, one action and two of them, in turn."""
    return [None if row % 3 == 0 else Committed(ACTIONS, row % 3) for row in range(ROWS)]


@pytest.mark.parametrize("name", DECODERS)
def test_drafts_change_no_token_that_follows_what_is_committed(token_policy, seen, name):
    policy = token_policy
    policy.engine = EqualBatches(policy.denoiser)
    observation = seen(ROWS)
    plain = policy.predict(observation, make_sampler(name, drafts=0), seeds())
    out = policy.predict(observation, make_sampler(name, drafts=0), seeds(), committed=given())
    first, tokens = policy.first_action, policy.tokeniser.encode(policy.normaliser.normalise("action", out.actions))
    expected = policy.tokeniser.encode(policy.normaliser.normalise("action", torch.tensor(ACTIONS).float())).tokens
    for row, one in enumerate(given()):
        count = 0 if one is None else one.count
        assert torch.equal(tokens.tokens[row, first : first + count], expected[:count])
        assert torch.equal(out.actions[row, first : first + count], torch.tensor(ACTIONS[:count]).float())
        if name != "threshold":  # its steps depend on the logits, those of the others on what is masked
            assert int(out.stats.calls[row]) <= int(plain.stats.calls[row])
        if one is None:
            assert torch.equal(out.actions[row], plain.actions[row])
    for drafts in DECODERS[name]:
        drafted = policy.predict(observation, make_sampler(name, **drafts), seeds(), committed=given())
        assert torch.equal(drafted.actions, out.actions)
        assert int(drafted.stats.calls.sum()) <= int(out.stats.calls.sum())


def test_states_begin_with_what_is_committed(token_policy, seen):
    states = token_policy.predict(seen(ROWS), "raster", seeds(), True, given()).states
    masked = (states[0] == token_policy.tokeniser.bins).all(-1)  # (B, H)
    assert masked.sum(1).tolist() == [4 - row % 3 for row in range(ROWS)] and masked[:, 0].all()


def test_a_whole_chunk_may_be_committed_but_its_past(token_policy, seen):
    long = Committed(np.concatenate([ACTIONS, ACTIONS]), 6)
    out = token_policy.predict(seen(1), "confidence", seeds()[:1], committed=long)
    assert int(out.stats.calls[0]) == token_policy.action_dim  # the entry of the older frame is still drawn


def test_tokens_know_one_way(token_policy, seen):
    with pytest.raises(SpecpolicyError, match=r"stitching=rtc: .* use one of inpaint$"):
        token_policy.predict(seen(1), committed=Committed(ACTIONS, 1, "rtc"))
