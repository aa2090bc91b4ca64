"""Tokenisers: exact round trips, clipping that is counted, bins that hold as many actions each."""

import json

import pytest
import torch

from specpolicy import SpecpolicyError
from specpolicy.parsing import parse, plain
from specpolicy.policy.normaliser import Normaliser
from specpolicy.tokens.tokeniser import Bins, QuantileBins, Tokeniser, make_tokeniser


def actions(count=4_000):
    generator = torch.Generator().manual_seed(0)
    smooth = torch.randn(count, 2, generator=generator).clamp(-3, 3) / 3
    gripper = torch.randint(0, 2, (count, 1), generator=generator) * 2.0 - 1
    return torch.cat([smooth, gripper, torch.zeros(count, 1)], dim=1)


@pytest.mark.parametrize("kind", ("uniform", "quantile"))
@pytest.mark.parametrize("bins", (2, 64, 100, 256))
def test_centres_make_an_exact_round_trip(kind, bins):
    tokeniser = make_tokeniser(kind, bins, actions())
    tokens = torch.arange(bins)[:, None].expand(-1, 4)
    centres = tokeniser.decode(tokens)
    assert torch.equal(tokeniser.encode(centres).tokens, tokens)
    again = Tokeniser.from_config(parse(Bins, json.loads(json.dumps(plain(tokeniser.to_config()))), "tokens"), 4)
    assert torch.equal(again.decode(tokens), centres)


def test_a_uniform_token_is_off_by_half_a_bin_at_most():
    tokeniser, values = Tokeniser.uniform(4, 64), actions()
    assert float((tokeniser.decode(tokeniser.encode(values).tokens) - values).abs().max()) <= 1 / 64 + 1e-6


def test_quantile_bins_hold_as_many_actions_each():
    tokeniser, values = Tokeniser.quantile(actions(), 64), actions()
    counts = torch.bincount(tokeniser.encode(values).tokens[:, 0], minlength=64)
    assert counts.min() > 0.4 * len(values) / 64 and counts[1:-1].max() < 2 * len(values) / 64


def test_a_value_that_makes_up_half_of_the_data_is_kept_exactly():
    tokeniser, values = Tokeniser.quantile(actions(), 64), actions()
    assert torch.equal(tokeniser.decode(tokeniser.encode(values).tokens)[:, 2:], values[:, 2:])


def test_what_lies_outside_is_clipped_and_counted():
    found = Tokeniser.uniform(2, 64).encode(torch.tensor([[0.0, 1.5], [-7.0, 1.0]]))
    assert found.clipped == 2 and found.tokens[:, 1].tolist() == [63, 63] and found.tokens[1, 0] == 0


def test_extremes_that_a_normaliser_has_rounded_are_not_outside():
    actions = torch.rand(300, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.01, 1.0, 3.0, 70.0])
    normaliser = Normaliser.min_max({"action": (actions.amin(0), actions.amax(0))})
    assert Tokeniser.uniform(4, 64).encode(normaliser.normalise("action", actions)).clipped == 0


def test_quantile_bins_end_where_the_actions_they_were_fitted_to_end():
    tokeniser = Tokeniser.quantile(torch.linspace(-0.5, 0.25, 100)[:, None], 8)
    found = tokeniser.encode(torch.tensor([[-0.5], [0.25], [-0.51], [0.9], [0.0]]))
    assert found.clipped == 2
    assert found.tokens[:4, 0].tolist() == [0, 7, 0, 7]


@pytest.mark.parametrize("kind", ("uniform", "quantile"))
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (torch.tensor([[0.0, torch.nan, 0.0, 0.0]]), "not finite"),
        (torch.tensor([[0.0, torch.inf, 0.0, 0.0]]), "not finite"),
        (torch.zeros(5, 3), "4 dimensions"),
        (torch.tensor(0.0), "4 dimensions"),
    ],
)
def test_what_is_no_action_has_no_tokens(kind, wrong, message):
    with pytest.raises(SpecpolicyError, match=message):
        make_tokeniser(kind, 8, actions()).encode(wrong)


@pytest.mark.parametrize(
    "make",
    [
        lambda: make_tokeniser("wavelet", 64, actions()),
        lambda: make_tokeniser("uniform", 1, actions()),
        lambda: make_tokeniser("uniform", 64.5, actions()),
        lambda: parse(Bins, {"kind": "quantile", "bins": 64}, "tokens"),
        lambda: parse(Bins, {"bins": 64}, "tokens"),
        lambda: Tokeniser.from_config(QuantileBins(2, [[0.0, 1.0]], [0.0], [1.0]), 4),
        lambda: QuantileBins(3, [[0.0, 1.0]], [0.0], [1.0]),
        lambda: QuantileBins(2, [[0.0, 1e9]], [0.0], [1.0]),
        lambda: Tokeniser(torch.zeros(2, 4), torch.zeros(2), torch.ones(2)),
    ],
)
def test_bins_that_make_no_sense_are_refused(make):
    with pytest.raises(SpecpolicyError):
        make()
