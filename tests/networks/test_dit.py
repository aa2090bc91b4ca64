"""The diffusion transformer: its papers, its parts, its options."""

import copy

import pytest
import torch

from specpolicy import SpecpolicyError
from specpolicy.networks import DiffusionTransformer

H, D, C = 12, 3, 10


def network(**options):
    torch.manual_seed(0)
    sizes = {"hidden_dim": 16, "num_layers": 3, "num_heads": 2, "timestep_embed_dim": 8, **options}
    made = DiffusionTransformer(D, D, H, C, **sizes)
    for parameter in made.parameters():  # the modulations begin at zero
        torch.nn.init.normal_(parameter, std=0.3)
    return made.eval()


def inputs(rows, horizon=H, seed=0):
    source = torch.Generator().manual_seed(seed)
    x, cond = torch.randn(rows, horizon, D, generator=source), torch.randn(rows, C, generator=source)
    return x, torch.randint(100, (rows,), generator=source), cond


KINDS = (
    {},
    {"use_rope": False},
    {"use_positional_encoding": True},
    {"use_rope": False, "use_positional_encoding": True},
    {"rope_base": 100.0},
)


@pytest.mark.parametrize("options", KINDS, ids=str)
@pytest.mark.parametrize("rows, horizon", ((1, H), (5, H), (5, 7)))
def test_the_parts_are_the_network(options, rows, horizon):
    made, (x, t, cond) = network(**options), inputs(rows, horizon)
    split = made.split_denoiser(horizon, rows)
    with torch.inference_mode():
        expected = made(x, t, cond)
        torch.testing.assert_close(split(x, split.time_features(t) + split.condition_features(cond)), expected)
        shared = split(x, split.time_features(t) + split.condition_features(cond[:1]))
        torch.testing.assert_close(shared, made(x, t, cond[:1].expand(rows, -1)))
        torch.testing.assert_close(shared, made(x, t, cond[:1].repeat(rows, 1)))


def reference(made, x, t, cond, heads=2, base=10000.0):
    """The network after its papers: modulations of the joined features, each token rotated as pairs of numbers."""
    half = made.time_dim // 2
    angles = t[:, None].float() * torch.exp(-torch.log(torch.tensor(10000.0)) * torch.arange(half) / (half - 1))
    joined = torch.cat([made.time_mlp[1:](torch.cat([angles.sin(), angles.cos()], 1)), cond], 1)
    hidden = made.input_proj(x) + (0 if made.pos_embedding is None else made.pos_embedding[:, : x.shape[1]])
    for block in made.transformer_blocks:
        shift, scale, gate, shift2, scale2, gate2 = block.adaLN_modulation(joined)[:, None].chunk(6, dim=-1)
        normed = torch.nn.functional.layer_norm(hidden, hidden.shape[-1:], eps=1e-6) * (1 + scale) + shift
        if hasattr(block, "attn"):
            query, key, value = block.attn.qkv_proj(normed).unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
            size = query.shape[-1] // 2
            turns = torch.outer(torch.arange(x.shape[1]).double(), base ** (-torch.arange(size).double() / size))
            turn = torch.polar(torch.ones_like(turns), turns)

            def rotated(part, size=size, turn=turn):
                turned = torch.complex(part[..., :size].double(), part[..., size:].double()) * turn
                return torch.cat([turned.real, turned.imag], dim=-1).float()

            weights = (rotated(query) @ rotated(key).transpose(2, 3) / (2 * size) ** 0.5).softmax(-1)
            seen = block.attn.out_proj((weights @ value).transpose(1, 2).flatten(2))
        else:
            seen = block.multihead_attn(normed, normed, normed)[0]
        hidden = hidden + gate * seen
        normed = torch.nn.functional.layer_norm(hidden, hidden.shape[-1:], eps=1e-6) * (1 + scale2) + shift2
        hidden = hidden + gate2 * block.mlp(normed)
    return made.output_proj(hidden)


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_it_is_the_network_of_its_papers(options):
    made, (x, t, cond) = network(**options), inputs(4)
    with torch.no_grad():
        expected = reference(made, x, t, cond, base=options.get("rope_base", 10000.0))
        torch.testing.assert_close(made(x, t, cond), expected, rtol=1e-4, atol=1e-5)
        assert (made(x, t, cond) - reference(made, x, t, cond.roll(1, 0))).abs().max() > 0.1


def test_timesteps_lie_between_whole_numbers_too():
    made, (x, _, cond) = network(), inputs(3)
    times = torch.tensor([0.25, 0.5, 3.0])
    with torch.no_grad():
        torch.testing.assert_close(made(x, times, cond), reference(made, x, times, cond), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(made(x, times, cond)[2], made(x, torch.tensor([0, 0, 3]), cond)[2])


def test_it_begins_as_the_identity_of_its_tokens():
    torch.manual_seed(0)
    made, (x, t, cond) = DiffusionTransformer(D, D, H, C, 16, 2, 2, 8).eval(), inputs(2)
    with torch.no_grad():
        torch.testing.assert_close(made(x, t, cond), made.output_proj(made.input_proj(x)))


def test_gradients_reach_every_weight():
    for options in KINDS:
        made, (x, t, cond) = network(**options).train(), inputs(2)
        made(x, t, cond).square().sum().backward()
        assert all(parameter.grad.abs().sum() > 0 for parameter in made.parameters()), options


def test_a_call_changes_nothing_about_the_network():
    made, (x, t, cond) = network(), inputs(4)
    before = copy.deepcopy(made.state_dict())
    with torch.inference_mode():
        made.split_denoiser(H, 4)(x, made.time_features(t) + made.condition_features(cond))
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())


def test_more_actions_than_it_has_positions_for():
    x, t, cond = inputs(1, H + 1)
    with pytest.raises(SpecpolicyError, match="13 exceeds the 12"):
        network()(x, t, cond)
