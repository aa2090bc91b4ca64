"""Tests of distributions with torch alone, for checks where the packages of the tests are not installed."""

import math

import torch
from torch import Tensor


def same_distribution(first: Tensor, second: Tensor, projections: int = 16) -> float:
    """Return the p-value that two samples (n, d) have one distribution: Kolmogorov-Smirnov on random projections,
    joined (Bonferroni). A sampler of another distribution falls below any level, an exact one by chance alone."""
    generator = torch.Generator().manual_seed(0)
    scale = second.std(dim=0).clamp(min=1e-9)
    lines = torch.randn(first.shape[1], projections, generator=generator, dtype=torch.float64)
    least = 1.0
    for one, other in zip(((first / scale) @ lines).T, ((second / scale) @ lines).T, strict=True):
        values = torch.cat([one, other]).sort().values
        shares = [torch.searchsorted(part.sort().values, values, right=True) / len(part) for part in (one, other)]
        distance = float((shares[0] - shares[1]).abs().max())
        root = (len(one) * len(other) / (len(one) + len(other))) ** 0.5
        least = min(least, kolmogorov((root + 0.12 + 0.11 / root) * distance))
    return min(1.0, projections * least)


def same_as_normal(noises: Tensor) -> float:
    """Return the p-value that noises (N, d) are independent and standard normal: by their distribution function
    (Kolmogorov), their squares and the products of neighbouring rows, joined (Bonferroni)."""
    count = noises.numel()
    values = noises.flatten().sort().values
    expected = torch.special.ndtr(values)
    steps = torch.arange(count + 1, dtype=torch.float64) / count
    distance = float(torch.maximum(steps[1:] - expected, expected - steps[:-1]).max())
    squares = (float(noises.square().sum()) - count) / math.sqrt(2 * count)
    products = float((noises[1:] * noises[:-1]).sum()) / math.sqrt(noises[1:].numel())
    tails = [math.erfc(abs(score) / math.sqrt(2)) for score in (squares, products)]
    return min(1.0, 3 * min(kolmogorov(math.sqrt(count) * distance), *tails))


def kolmogorov(x: float) -> float:
    """Return P(K > x) of Kolmogorov's distribution."""
    if x < 0.3:
        return 1.0
    return min(1.0, 2 * sum((-1) ** (k - 1) * math.exp(-2 * k * k * x * x) for k in range(1, 40)))
