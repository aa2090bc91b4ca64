"""Tests of one distribution against another: what an exact sampler must pass and what a biased one must fail.

Every test is a list of p-values, joined by Bonferroni's rule into one that is at most the true one. So a threshold
on the joint p-value is a false-alarm rate.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import special


@dataclass(frozen=True)
class Verdict:
    """The p-value of each group of tests, already corrected for the number of tests in the group; and `distance`, the
    largest difference of two distribution functions that a KS test of two samples met."""

    groups: dict[str, float]
    distance: float = 0.0

    @property
    def p(self) -> float:
        """The p-value of all groups together."""
        return bonferroni(list(self.groups.values()))

    def __str__(self) -> str:
        return f"p = {self.p:.2g} (" + ", ".join(f"{name} {p:.2g}" for name, p in self.groups.items()) + ")"


def bonferroni(values) -> float:
    """One p-value for many tests, whatever their dependence."""
    values = np.asarray(values, dtype=float)
    return float(min(1.0, values.size * values.min())) if values.size else 1.0


class TwoSample:
    """KS tests on projections and an energy distance of new samples against a large reference sample.

    If `whiten`, coordinates are whitened by the reference's own covariance, in their order: of consecutive states
    what is left of the later ones is about the noise that their step added. Projections: each axis, and random
    directions. The energy distance (Szekely and Rizzo 2004) takes the norm mean |theta . x| over the projections
    theta, which makes it a sum over sorted projections.
    """

    def __init__(self, reference, directions=5, whiten=True, seed=0, points=600):
        """reference (m, d). `points`: the sample from which the distribution of the energy distance is computed."""
        reference = np.asarray(reference, dtype=np.float64)
        self.mean = reference.mean(0)
        centred = reference - self.mean
        if whiten:
            self.transform = np.linalg.inv(np.linalg.cholesky(np.cov(centred.T).reshape(2 * (centred.shape[1],)))).T
        else:
            self.transform = np.diag(1 / centred.std(0))
        size = centred.shape[1]
        random = np.random.default_rng(seed).standard_normal((size, directions))
        self.directions = np.concatenate([np.eye(size), random / np.linalg.norm(random, axis=0)], axis=1)
        self.reference = np.sort((centred @ self.transform @ self.directions).T, axis=1)
        self.eigenvalues = self._eigenvalues(centred[:points] @ self.transform @ self.directions)

    def _eigenvalues(self, projected):
        """Those of the centred distance kernel, as weights of the chi-squares that the energy distance tends to."""
        distance = sum(np.abs(column[:, None] - column) for column in projected.T) / projected.shape[1]
        mean = distance.mean(0)
        gram = mean[:, None] + mean - distance - mean.mean()
        return np.linalg.eigvalsh(gram / len(gram)).clip(min=0)

    def __call__(self, sample):
        """(p of all KS tests together, p of the energy distance, largest KS distance) for a sample (n, d)."""
        projected = ((np.asarray(sample, dtype=np.float64) - self.mean) @ self.transform @ self.directions).T
        n, m = projected.shape[1], self.reference.shape[1]
        scale = n * m / (n + m)
        largest, energies = [], []
        for ours, theirs in zip(projected, self.reference, strict=True):
            pooled = np.concatenate([theirs, np.sort(ours)])
            order = np.argsort(pooled, kind="stable")
            values = pooled[order]
            difference = np.cumsum(np.where(order < m, -1 / m, 1 / n))
            width = np.diff(values)
            distinct = np.append(width > 0, False)  # distribution functions are compared behind ties, not inside
            largest.append(np.abs(difference[distinct]).max(initial=0.0))
            energies.append(2 * (difference[:-1] ** 2 * width).sum())
        ks = special.kolmogorov(np.sqrt(scale) * np.array(largest))
        return bonferroni(ks), chi_square_tail(scale * float(np.mean(energies)), self.eigenvalues), max(largest)


def chi_square_tail(value, weights) -> float:
    """An upper bound (Chernoff) on P(sum_i weights_i Z_i^2 > value), Z_i standard normal."""
    if value <= weights.sum():
        return 1.0
    # log of the bound: -s value - sum log(1 - 2 s weights) / 2, over s in (0, 1 / (2 max weights)).
    s = (1 - np.logspace(0, -6, 400)[1:]) / (2 * weights.max())
    log_bound = -s * value - 0.5 * np.log1p(-2 * s[:, None] * weights).sum(1)
    return float(np.exp(log_bound.min()))


@torch.inference_mode()
def innovations(denoiser, chain, states, cond=None):
    """The noises (K', n, H*D) of the noisy steps that `states` (K+1, n, H, D) imply, and unit directions (K', n, H*D)
    that are known before each noise: that in which x0 changed over the step before, where rejections happen."""
    noises, directions, before = [], [], None
    for step in range(len(chain)):
        state, timestep = states[step], chain.timesteps[step].expand(len(states[step]))
        x0 = chain.x0(denoiser(state, timestep, cond), state, step)
        mean, clipped = chain.mean(state, x0, step), chain.process.clipped(x0)
        if float(chain.sigma[step]) > 0:
            noises.append(((states[step + 1] - mean).double() / chain.sigma[step]).flatten(1))
            change = clipped if before is None else clipped - before
            # Where the clip holds x0 fast nothing changes: any direction will do.
            change = torch.where((change.flatten(1).abs().amax(1) > 1e-6)[:, None, None], change, state)
            directions.append(torch.nn.functional.normalize(change.double().flatten(1), dim=1))
        before = clipped
    return torch.stack(noises), torch.stack(directions)


def innovation_p(noises, directions) -> float:
    """Are the noises independent standard normals? One p-value for: the coordinates along the directions, of all
    steps and of each; the mean coordinate; that along the noise of the step before; the norms."""
    steps, _, size = noises.shape
    along = (noises * directions).sum(-1)
    values = [ks_normal(along), *(ks_normal(one) for one in along), ks_normal(noises.sum(-1) / size**0.5)]
    if steps > 1:
        values.append(ks_normal((noises[1:] * torch.nn.functional.normalize(noises[:-1], dim=-1)).sum(-1)))
    values.append(ks(special.gammainc(size / 2, noises.square().sum(-1).numpy() / 2)))
    return bonferroni(values)


def ks_normal(values) -> float:
    """p of the Kolmogorov-Smirnov test of `values`, a tensor of any shape, against the standard normal."""
    return ks(special.ndtr(values.numpy()))


def ks(quantiles) -> float:
    """The same for values that should be uniform in [0, 1]."""
    cdf = np.sort(quantiles.flatten())
    steps = np.arange(len(cdf) + 1) / len(cdf)
    return float(special.kolmogorov(np.sqrt(len(cdf)) * max((steps[1:] - cdf).max(), (cdf - steps[:-1]).max())))


class ChainDistribution:
    """The tests of a sampler on one chain: final chunks and consecutive states against the sequential sampler's
    states, and the noises that its states imply against the standard normal."""

    def __init__(self, denoiser, chain, reference, cond=None, places=3, features=torch.flatten):
        """reference (K+1, m, H, D): the sequential sampler's states, whose conditions are `cond` (m, ...) or None.
        `places`: how many triples of consecutive states are looked at, from the noisiest to the last noisy one.
        `features`: what of a chunk is looked at, (H, D) -> (d,); all of it serves where chunks are small."""
        self.denoiser, self.chain, self.features = denoiser, chain, torch.vmap(features)
        self.places = sorted({round(place) for place in np.linspace(0, len(chain) - 3, places)})
        # A covariance of too few chunks fits them too well: then coordinates are only scaled.
        size = self._side_by_side(reference[:3], cond).shape[1]
        self.final = TwoSample(self._side_by_side(reference[-2:], cond), whiten=False)
        self.joint = [
            TwoSample(self._side_by_side(reference[at : at + 3], cond), whiten=reference.shape[1] > 200 * size)
            for at in self.places
        ]

    def __call__(self, states, cond=None) -> Verdict:
        """Judge `states` (K+1, n, H, D)."""
        pairs = zip(self.joint, self.places, strict=True)
        joint = [test(self._side_by_side(states[at : at + 3], cond)) for test, at in pairs]
        ks, energy, distances = zip(*joint, strict=True)
        final_ks, final_energy, distance = self.final(self._side_by_side(states[-2:], cond))
        groups = {
            "final KS": final_ks,
            "final energy": final_energy,
            "joint KS": bonferroni(ks),
            "joint energy": bonferroni(energy),
            "noises": innovation_p(*innovations(self.denoiser, self.chain, states, cond)),
        }
        return Verdict(groups, max(distance, *distances))

    def _side_by_side(self, states, cond):
        """The features of consecutive states (S, n, H, D) of each chunk and its condition, as one vector: (n, ...)."""
        parts = [self.features(state) for state in states] + ([] if cond is None else [cond.flatten(1)])
        return torch.cat(parts, dim=1).numpy()
