"""Functions of torch as graphs of OpenVINO compute what torch computes."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from specpolicy.engines.openvino_model import draw
from specpolicy.errors import SpecpolicyError

openvino = pytest.importorskip("openvino")
W, B = torch.randn(4, 6, generator=torch.Generator().manual_seed(1)), torch.linspace(-1, 1, 4)
KERNEL = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(2))
SCALE, SHIFT = torch.linspace(0.5, 2, 6), torch.linspace(-1, 1, 6)

FUNCTIONS = {
    "arithmetic": lambda x: (2 * x + x * x - 0.5) * SCALE[:, None] + SHIFT[:, None] - x,
    "reversed arithmetic": lambda x: SCALE[:, None] * x + (SHIFT[:, None] + x),
    "product": lambda x: x.transpose(1, 2) @ W.T,
    "linear": lambda x: functional.linear(x.permute(0, 2, 1), W, B),
    "linear without a bias": lambda x: functional.linear(x.transpose(1, 2), W),
    "convolution": lambda x: functional.conv1d(x, KERNEL, B, 2, 1),
    "two-dimensional convolution": lambda x: functional.conv2d(x[:, :, None], KERNEL[:, :, None], B, (1, 2), (0, 1)),
    "group norm": lambda x: functional.group_norm(x, 3, SCALE, SHIFT, 1e-3),
    "layer norm": lambda x: functional.layer_norm(x.transpose(1, 2), (6,), SCALE, SHIFT, 1e-3),
    "layer norm without weights": lambda x: functional.layer_norm(x, (6, 8)),
    "activations": lambda x: functional.mish(30 * x) + functional.silu(x) + functional.gelu(x),
    "gelu by tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "shapes": lambda x: x.reshape(2, -1, 3, 8).permute((0, 2, 1, 3)).reshape(2, 6, 8).view((2, 48)),
    "pieces": lambda x: torch.cat([*x.chunk(2, dim=1), *x.split([1, 2, 3], dim=1)], dim=2 - 1),
    "stack": lambda x: torch.stack((x[:, :, :-1], x[:, :, 1:]), dim=3).reshape(2, 6, 14),
    "pad": lambda x: functional.pad(x, (1, 2, 0, 3)),
    "slices": lambda x: x[..., 2:5][1][None] + x[:1, :, -3:] + x[0, None, :, 1:4],
    "numbers as indices": lambda x: torch.cat([x[:, -1], x[:, 2]], dim=1),
    "attention": lambda x: functional.scaled_dot_product_attention(x, x + 1, 2 * x),
    "masked attention": lambda x: functional.scaled_dot_product_attention(x, x, x, attn_mask=torch.eye(6)),
}


def run(function, shape, *values):
    compiled = openvino.Core().compile_model(draw(function, shape), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled([value.numpy() for value in values])[0]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_operations_are_those_of_torch(name):
    x = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0))
    expected = FUNCTIONS[name](x).numpy()
    found = run(FUNCTIONS[name], [x.shape], x)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())


def test_any_number_of_rows():
    x = torch.randn(5, 6, 8)
    np.testing.assert_allclose(run(FUNCTIONS["shapes"], [(2, 6, 8)], x[:2]), FUNCTIONS["shapes"](x[:2]).numpy())
    norm = FUNCTIONS["layer norm"]
    np.testing.assert_allclose(run(norm, [(-1, 6, 8)], x), norm(x).numpy(), atol=1e-5)


def test_several_inputs():
    x, y = torch.randn(2, 3), torch.randn(3, 4)
    np.testing.assert_allclose(run(lambda x, y: x @ y, [x.shape, y.shape], x, y), (x @ y).numpy(), atol=1e-5)


@pytest.mark.parametrize(
    "function",
    (
        lambda x: torch.fft.fft(x),
        lambda x: x.cumsum(0),
        lambda x: x[:, ::2],
        lambda x: x @ torch.ones(3, 3),
        lambda x: functional.pad(x, (1, 1), value=2.0),
        lambda x: functional.scaled_dot_product_attention(x, x, x, is_causal=True),
    ),
)
def test_what_it_does_not_know_is_one_clear_line(function):
    with pytest.raises(SpecpolicyError, match="OpenVINO cannot convert this network: use engine eager") as caught:
        draw(function, [(2, 6, 8)])
    assert "\n" not in str(caught.value)
