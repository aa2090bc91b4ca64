"""The network of action tokens: shapes, what it sees, and what it does not."""

import pytest
import torch

from specpolicy import SpecpolicyError
from specpolicy.networks import MaskedTransformer

V, H, D = 8, 4, 3


@pytest.fixture
def network():
    torch.manual_seed(0)
    made = MaskedTransformer(V, H, D, 5, 2, n_layer=2, n_head=2, n_emb=16).eval()
    with torch.no_grad():
        made.token.weight.mul_(50)  # an untrained network hardly looks at its tokens
    return made


def inputs(rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(V + 1, (rows, H, D), generator=generator)
    return tokens, torch.zeros(rows, dtype=torch.int64), torch.randn(rows, 2, 5, generator=generator)


@torch.no_grad()
def test_every_token_gets_logits_and_rows_do_not_know_of_each_other(network):
    tokens, t, cond = inputs(6)
    together = network(tokens, t, cond)
    assert together.shape == (6, H, D, V)
    for row in range(6):
        alone = network(tokens[[row]], t[[row]], cond[[row]])
        torch.testing.assert_close(alone[0], together[row])


@torch.no_grad()
def test_every_position_sees_every_other_and_the_observation(network):
    tokens, t, cond = inputs(1)
    before = network(tokens, t, cond)
    for position in range(H * D):
        changed = tokens.clone()
        changed.view(-1)[position] = (changed.view(-1)[position] + 1) % (V + 1)
        moved = (network(changed, t, cond) - before).abs().amax(dim=-1)
        assert (moved > 1e-6).all(), position
    for frame in range(2):
        changed = cond.clone()
        changed[0, frame] += 1
        assert ((network(tokens, t, changed) - before).abs().amax(dim=-1) > 1e-6).all()


@torch.no_grad()
def test_the_number_of_masked_tokens_is_seen_and_not_told(network):
    tokens, t, cond = inputs(3)
    assert torch.equal(network(tokens, t, cond), network(tokens, t + 7, cond))


@torch.no_grad()
def test_each_dimension_has_embeddings_of_its_own(network):
    tokens, t, cond = inputs(1)
    network.token.weight[: V + 1].zero_()  # those of the first dimension
    tokens[..., 0] = 0
    before = network(tokens, t, cond)
    tokens[..., 0] = V
    assert torch.equal(network(tokens, t, cond), before)
    tokens[..., 1] = (tokens[..., 1] + 1) % (V + 1)
    assert not torch.equal(network(tokens, t, cond), before)


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(SpecpolicyError, match="multiple of n_head"):
        MaskedTransformer(V, H, D, 5, 2, n_head=3, n_emb=16)
