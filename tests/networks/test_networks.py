"""Structure, names and batching of the denoising networks."""

import json
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from specpolicy import SpecpolicyError
from specpolicy.networks import ConditionalUnet1D, EncoderTransformer, LowDimEncoder, TransformerForDiffusion

GOLDEN = Path(__file__).parent / "state_dict_shapes.json"


def unet(**options):
    torch.manual_seed(0)
    return ConditionalUnet1D(
        3, global_cond_dim=10, diffusion_step_embed_dim=16, down_dims=(16, 24, 32), **options
    ).eval()


def transformer(**options):
    torch.manual_seed(0)
    return TransformerForDiffusion(3, 3, 16, 2, 5, n_layer=2, n_head=2, n_emb=16, **options).eval()


def test_state_dicts_have_the_published_names_and_shapes():
    """The U-Net's golden entry was read from a checkpoint that real-stanford/diffusion_policy wrote; the
    transformer's follows the names published there."""
    golden = json.loads(GOLDEN.read_text())
    peer = ConditionalUnet1D(2, global_cond_dim=40, **golden["unet_options"])
    for name, network in (("unet", peer), ("transformer", transformer())):
        assert {key: list(value.shape) for key, value in network.state_dict().items()} == golden[name], name
    local = set(unet(local_cond_dim=4).state_dict()) - set(unet().state_dict())
    assert local and all(name.startswith(("local_cond_encoder.0.", "local_cond_encoder.1.")) for name in local)


def test_the_published_unet_has_its_published_size():
    network = ConditionalUnet1D(2, global_cond_dim=40)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(65.8e6, rel=1e-3)


@pytest.mark.parametrize("make, cond", ((unet, torch.randn(6, 10)), (transformer, torch.randn(6, 2, 5))))
def test_a_vector_of_timesteps_equals_one_call_per_row(make, cond):
    network = make()
    x, t = torch.randn(6, 16, 3), torch.tensor([0, 3, 99, 50, 50, 7])
    with torch.no_grad():
        together = network(x, t, cond)
        for row in range(6):
            alone = network(x[row : row + 1], int(t[row]), cond[row : row + 1])
            torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-5)
    assert together.shape == x.shape


@pytest.mark.parametrize("make, cond", ((unet, torch.randn(2, 10)), (transformer, torch.randn(2, 2, 5))))
def test_timestep_and_condition_matter(make, cond):
    network, x = make(), torch.randn(2, 16, 3)
    with torch.no_grad():
        base = network(x, 5, cond)
        assert not torch.allclose(base, network(x, 6, cond))
        assert not torch.allclose(base, network(x, 5, cond + 1))


def test_causal_attention_does_not_look_ahead():
    network, x, cond = transformer(), torch.randn(1, 16, 3), torch.randn(1, 2, 5)
    changed = x.clone()
    changed[:, 9:] += 1
    with torch.no_grad():
        torch.testing.assert_close(network(x, 5, cond)[:, :9], network(changed, 5, cond)[:, :9])
        assert not torch.allclose(network(x, 5, cond)[:, 9:], network(changed, 5, cond)[:, 9:])


def test_local_condition_enters():
    network, x, cond = unet(local_cond_dim=4), torch.randn(1, 16, 3), torch.randn(1, 10)
    with torch.no_grad():
        assert not torch.allclose(network(x, 5, cond), network(x, 5, cond, torch.randn(1, 16, 4)))


@pytest.mark.parametrize(
    "call",
    (
        lambda: unet()(torch.randn(1, 18, 3), 0, torch.randn(1, 10)),
        lambda: transformer()(torch.randn(1, 20, 3), 0, torch.randn(1, 2, 5)),
        lambda: ConditionalUnet1D(2, down_dims=(20, 40)),
        lambda: TransformerForDiffusion(2, 2, 16, 2, 5, n_emb=18, n_head=4),
    ),
)
def test_impossible_sizes_are_one_clear_line(call):
    with pytest.raises(SpecpolicyError) as error:
        call()
    assert "\n" not in str(error.value)


def test_the_encoder_concatenates_frames_in_key_order():
    encoder = LowDimEncoder({"b": 2, "a": 1}, n_obs_steps=2)
    observation = {"a": torch.tensor([[[5.0], [6.0]]]), "b": torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])}
    assert encoder(observation).tolist() == [[1, 2, 5, 3, 4, 6]]
    assert LowDimEncoder({"b": 2, "a": 1}, 2, tokens=True)(observation).shape == (1, 2, 3)


class Reads(TorchDispatchMode):
    """Counts how often a number is read from a tensor, which waits for a GPU and breaks the capture of a graph."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("causal", (True, False))
def test_a_call_reads_nothing_from_its_tensors(causal):
    x, t, cond = torch.randn(2, 16, 3), torch.tensor([3, 9]), torch.randn(2, 2, 5)
    encoder = EncoderTransformer(3, 3, 16, n_layer=2, n_head=2, n_emb=16, causal_attn=causal).eval()
    with torch.no_grad(), Reads() as reads:
        transformer(causal_attn=causal)(x, t, cond)
        encoder(x, t)
    assert reads.count == 0
