"""The towers of CLIP against their formulas, written out here with numpy alone."""

import math

import numpy as np
import pytest
import torch

from specpolicy.networks.clip import ClipVision, LanguageEncoder
from specpolicy.networks.vision_options import ClipOptions, LanguageOptions

SIZES = {"width": 12, "layers": 2, "heads": 3, "hidden": 20}


@pytest.fixture(params=("quick_gelu", "gelu"))
def activation(request):
    return request.param


def with_weights(module):
    """The module with random weights, and them by name."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 2
    return module.double().eval(), {name: value.numpy() for name, value in module.state_dict().items()}


def normed(weights, name, x):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5) * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(weights, name, x):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def attended(weights, name, x, causal):
    """Attention, one head and one token after the other."""
    query, key, value = (linear(weights, f"{name}.{which}_proj", x) for which in "qkv")
    seen, size = np.zeros_like(x), SIZES["width"] // SIZES["heads"]
    for head in range(SIZES["heads"]):
        part = slice(head * size, (head + 1) * size)
        for token in range(len(x)):
            last = token + 1 if causal else len(x)
            weight = np.exp(key[:last, part] @ query[token, part] / math.sqrt(size))
            seen[token, part] = weight @ value[:last, part] / weight.sum()
    return linear(weights, f"{name}.out_proj", seen)


def tower(weights, prefix, x, causal, activation):
    for number in range(SIZES["layers"]):
        name = f"{prefix}layers.{number}"
        x = x + attended(weights, f"{name}.self_attn", normed(weights, f"{name}.layer_norm1", x), causal)
        hidden = linear(weights, f"{name}.mlp.fc1", normed(weights, f"{name}.layer_norm2", x))
        gate = {
            "quick_gelu": lambda value: 1 / (1 + math.exp(-1.702 * value)),
            "gelu": lambda value: (1 + math.erf(value / math.sqrt(2))) / 2,
        }[activation]
        x = x + linear(weights, f"{name}.mlp.fc2", hidden * np.vectorize(gate)(hidden))
    return x


def test_images_become_the_token_that_stands_for_the_whole(activation):
    options = ClipOptions(**SIZES, activation=activation, patch=4, size=8)
    vision, weights = with_weights(ClipVision(options))
    image = np.random.default_rng(1).normal(size=(3, 8, 8))
    filters = weights["embeddings.patch_embedding.weight"]
    patches = [
        [(filters[out] * image[:, top : top + 4, left : left + 4]).sum() for out in range(SIZES["width"])]
        for top in (0, 4)
        for left in (0, 4)
    ]
    tokens = np.stack([weights["embeddings.class_embedding"], *map(np.array, patches)])
    tokens = tokens + weights["embeddings.position_embedding.weight"]
    expected = tower(weights, "encoder.", normed(weights, "pre_layrnorm", tokens), False, activation)[0]
    with torch.inference_mode():
        np.testing.assert_allclose(vision(torch.as_tensor(image)[None]).numpy()[0], expected, atol=1e-9)


def test_texts_become_the_token_that_ends_them(activation):
    options = LanguageOptions(**SIZES, activation=activation, vocabulary=16, positions=7, features=5)
    language, weights = with_weights(LanguageEncoder(options))
    text = [3, 1, 9, 15, 0, 0]  # 15 ends it
    own = {name.removeprefix("tower."): value for name, value in weights.items()}
    tokens = own["embeddings.token_embedding.weight"][text] + own["embeddings.position_embedding.weight"][: len(text)]
    states = normed(own, "final_layer_norm", tower(own, "encoder.", tokens, True, activation))
    with torch.inference_mode():
        found = language(torch.tensor([text])).numpy()[0]
    np.testing.assert_allclose(found, linear(own, "projection", states[3]), atol=1e-9)
