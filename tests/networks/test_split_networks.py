"""Networks in two parts are the same functions."""

import copy

import pytest
import torch

from specpolicy.networks import ConditionalUnet1D, TransformerForDiffusion


def unet(condition=10, **options):
    torch.manual_seed(0)
    return ConditionalUnet1D(3, None, condition, 16, **{"down_dims": (16, 32, 48), **options}).eval()


def transformer(condition=5, **options):
    torch.manual_seed(0)
    network = TransformerForDiffusion(3, 3, 16, 2, condition, **{"n_layer": 2, "n_head": 2, "n_emb": 16, **options})
    for parameter in network.parameters():  # positions and biases begin near zero
        torch.nn.init.normal_(parameter, std=0.3)
    return network.eval()


def inputs(rows, horizon, *condition):
    source = torch.Generator().manual_seed(rows)
    x = torch.randn(rows, horizon, 3, generator=source)
    cond = torch.randn(rows, *condition, generator=source) if condition else None
    return x, torch.randint(100, (rows,), generator=source), cond


def check(network, split, x, t, cond):
    with torch.inference_mode():
        expected = network(x, t, cond)
        found = split(x, split.time_features(t) + split.condition_features(cond))
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-5 * expected.std().clamp(min=1)


@pytest.mark.parametrize("rows", (1, 2, 7))
@pytest.mark.parametrize(
    "options, horizon",
    (
        ({}, 16),
        ({"cond_predict_scale": False, "kernel_size": 3, "n_groups": 4}, 8),
        ({"down_dims": (16, 32)}, 32),  # its first level is too tall for rows side by side
        ({"condition": None}, 4),
    ),
)
def test_the_split_unet_is_the_unet(options, horizon, rows):
    network = unet(**options)
    given = inputs(rows, horizon, *([] if options.get("condition", 1) is None else [10]))
    check(network, network.split_denoiser(horizon, rows), *given)


@pytest.mark.parametrize("rows", (1, 7))
@pytest.mark.parametrize("options, horizon", (({}, 16), ({"causal_attn": False}, 16), ({"condition": 0}, 10)))
def test_the_split_transformer_is_the_transformer(options, horizon, rows):
    network = transformer(**options)
    check(
        network,
        network.split_denoiser(horizon, rows),
        *inputs(rows, horizon, *([] if "condition" in options else [2, 5])),
    )


def test_features_of_one_condition_serve_all_rows():
    for network, condition in ((unet(), (10,)), (transformer(), (2, 5))):
        split, (x, t, cond) = network.split_denoiser(16, 6), inputs(6, 16, *condition)
        features = split.time_features(t) + split.condition_features(cond[:1])
        assert torch.allclose(split(x, features), network(x, t, cond[:1].expand_as(cond)), atol=1e-5)


def test_what_cannot_be_split_says_so():
    local = ConditionalUnet1D(3, 4, None, 16, (16, 32))
    assert local.split_denoiser(16, 1) is None
    assert transformer(n_cond_layers=1).split_denoiser(16, 1) is None


def test_splitting_changes_nothing_about_the_network():
    for network, condition in ((unet(), (10,)), (transformer(), (2, 5))):
        before, training = copy.deepcopy(network.state_dict()), network.train()
        split = training.split_denoiser(16, 4)
        x, t, cond = inputs(4, 16, *condition)
        split(x, split.time_features(t) + split.condition_features(cond))
        assert set(network.state_dict()) == set(before)
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
        assert network.training and all(parameter.requires_grad for parameter in network.parameters())
        assert all(parameter.grad is None for parameter in network.parameters())
