"""Each published sampler as its paper states it: slow, one chunk at a time, to be read beside the paper.

The fast samplers draw the same chunks from the same noises and uniform numbers: tests/samplers/test_reference.py.

In all papers the state at step n (0 is the noisiest) becomes mean(state, x0, n) + sigma_n noise, where x0 is the
network's prediction of the clean chunk there. A draft uses a guess of x0 in place of the network's. So the draft's p =
N(m_p, sigma^2 I) and the target's q = N(m_q, sigma^2 I) differ in their means alone.

Two conventions are ours. The guessed and held quantity is x0, where a paper may hold the noise or the drift. And the
last draft of a round is evaluated too, as with tokens (Leviathan et al. 2023, algorithm 1), so a fully accepted draft
brings one ordinary step more. The last step of a chain is always such a step, because it usually adds no noise.

Every sampler takes
    denoiser: the network, (x (N, H, D), t (N,), cond (N, ...) or None) -> (N, H, D);
    chain: the target, whose steps but perhaps the last add noise;
    state: (H, D), the initial noise; cond: (...), the condition of this one chunk, or None;
    draws: the randomness, as `fresh_draws` makes it;
    window: most drafts in a round, or None: draft to the end of the chain.

Papers: Hu, Das, Sadigh, Anari 2025 (arXiv 2505.03983); De Bortoli, Galashov, Gretton, Doucet 2025 (2501.05370); Soen,
Husain, De Bortoli, Doucet 2026 (2606.13426); Sun et al. 2025 (2403.10444); Leviathan et al. 2023 (2211.17192).
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from specpolicy.diffusion import GaussianChain
from specpolicy.errors import SpecpolicyError
from specpolicy.samplers.base import Denoiser


class Draw(NamedTuple):
    """Random numbers of one step in one round: `noise` (H, D), standard normal, and two uniform numbers in [0, 1).
    `accept` decides on the draft; from `redraw` the coordinate of a rejected draft is drawn anew."""

    noise: Tensor
    accept: float
    redraw: float


Draws = Callable[[int, int], Draw]  # (round, step), both from 0; the same arguments give the same draw
Window = int | None
Coupling = Callable[[Tensor, Tensor, float, Draw], tuple[bool, Tensor]]


class Drawn(NamedTuple):
    """A `chunk` (H, D), the number of sequential network `calls`, the `accepted` drafts of each round, and the K + 1
    `states` (H, D), noisiest first."""

    chunk: Tensor
    calls: int
    accepted: list[int]
    states: list[Tensor]


def autospeculative_decoding(
    denoiser: Denoiser, chain: GaussianChain, state: Tensor, cond: Tensor | None, draws: Draws, window: Window = None
) -> Drawn:
    """Autospeculative decoding, ASD (Hu et al. 2025); `window` is the speculation length. The network drafts for
    itself, with its output at the current state: two calls a round."""
    network, path, accepted = _Network(denoiser, chain, cond), [state], list[int]()
    while len(path) <= len(chain):
        step = len(path) - 1
        sigma, draw = _open(chain, draws, len(accepted), step, window)
        # Propose, as if the network's output at all later states were the one at this state.
        [frozen] = network(path[-1:], step)
        states, means = path[-1:], []
        for i in range(len(draw) - 1):
            means.append(chain.mean(states[-1], frozen, step + i))
            states.append(means[-1] + sigma[i] * draw[i].noise)
        # Evaluate all proposals in one call.
        targets = _means(chain, states, network(states, step, known=[frozen]), step)
        # Verify them with the Gaussian rejection sampler.
        path += one_by_one(reflection_coupling, means, targets, sigma, draw)
        accepted.append(len(path) - 2 - step)
    return Drawn(path[-1], network.calls, accepted, path)


def reflection_coupling(draft_mean: Tensor, target_mean: Tensor, sigma: float, draw: Draw) -> tuple[bool, Tensor]:
    """The reflection-maximal coupling (De Bortoli et al. 2025, algorithm 4 and proposition 3.1), which is the Gaussian
    rejection sampler of Hu et al. 2025. Return whether the draft is kept, and a state distributed as the target."""
    gap, z = _gap(draft_mean, target_mean, sigma), draw.noise.double()
    log_ratio = float((gap * z).sum() - gap.square().sum() / 2)  # log q/p at the draft, m_p + sigma z
    if math.log1p(-draw.accept) <= log_ratio:  # 1 - u is as uniform as u, and never 0
        return True, draft_mean + sigma * draw.noise
    unit = gap / gap.norm()
    mirrored = z - 2 * (unit * z).sum() * unit
    return False, target_mean + sigma * mirrored.to(target_mean)


def speculative_sampling(
    denoiser: Denoiser,
    chain: GaussianChain,
    state: Tensor,
    cond: Tensor | None,
    draws: Draws,
    window: Window = None,
    draft_denoiser: Denoiser | None = None,
) -> Drawn:
    """Speculative sampling of a diffusion model (De Bortoli et al. 2025, algorithm 3); `window` is the paper's L. The
    drafts come from an independent draft model. Without one, they come from the target frozen at the current state
    (equation 7), which takes a second call a round."""
    network, path, accepted = _Network(denoiser, chain, cond), [state], list[int]()
    small = None if draft_denoiser is None else _Network(draft_denoiser, chain, cond)
    while len(path) <= len(chain):
        step = len(path) - 1
        sigma, draw = _open(chain, draws, len(accepted), step, window)
        # Sample L drafts.
        frozen = network(path[-1:], step) if small is None else []
        states, means = path[-1:], []
        for i in range(len(draw) - 1):
            [guess] = frozen if small is None else small(states[-1:], step + i)
            means.append(chain.mean(states[-1], guess, step + i))
            states.append(means[-1] + sigma[i] * draw[i].noise)
        # Compute the target's means in parallel.
        targets = _means(chain, states, network(states, step, known=frozen), step)
        # Accept, or reflect and stop.
        path += one_by_one(reflection_coupling, means, targets, sigma, draw)
        accepted.append(len(path) - 2 - step)
    return Drawn(path[-1], network.calls, accepted, path)


def one_by_one(
    couple: Coupling, means: list[Tensor], targets: list[Tensor], sigma: list[float], draw: list[Draw]
) -> list[Tensor]:
    """Return the new states of a round (Leviathan et al. 2023, algorithm 1; the verifier of Hu et al. 2025): the drafts
    up to the first rejection and its replacement; after the last draft, an ordinary step."""
    states = []
    for i, mean in enumerate(means):
        kept, state = couple(mean, targets[i], sigma[i], draw[i])
        states.append(state)
        if not kept:
            return states
    return [*states, targets[-1] + sigma[-1] * draw[-1].noise]


def residual_coupling(draft_mean: Tensor, target_mean: Tensor, sigma: float, draw: Draw) -> tuple[bool, Tensor]:
    """The original rule of speculative sampling for two Gaussians (Soen et al. 2026, proposition 3.1). A rejected draft
    is drawn anew from the rest of the target, max(q - p, 0). Across the gap between the means that is the draft's own
    standard normal, whose noise stays. Along the gap it is a density in one dimension."""
    gap, z = _gap(draft_mean, target_mean, sigma), draw.noise.double()
    delta, product = float(gap.norm()), float((gap * z).sum())
    if math.log1p(-draw.accept) <= product - delta**2 / 2:
        return True, draft_mean + sigma * draw.noise
    moved = z + (residual_coordinate(0.0, delta, draw.redraw) - product / delta) * gap / delta
    return False, draft_mean + sigma * moved.to(draft_mean)


def residual_speculative_sampling(
    denoiser: Denoiser, chain: GaussianChain, state: Tensor, cond: Tensor | None, draws: Draws, window: Window = None
) -> Drawn:
    """Original speculative sampling of a diffusion model (Soen et al. 2026, section 3), with the Free Drafter."""
    network, path, accepted, held = _Network(denoiser, chain, cond), [state], list[int](), None
    while len(path) <= len(chain):
        step = len(path) - 1
        sigma, draw = _open(chain, draws, len(accepted), step, window)
        states, means, x0 = free_drafter(network, path[-1], held, sigma, draw, step)
        targets = _means(chain, states, x0, step)
        path += one_by_one(residual_coupling, means, targets, sigma, draw)
        accepted.append(len(path) - 2 - step)
        held = x0[accepted[-1]]
    return Drawn(path[-1], network.calls, accepted, path)


def block_verification(
    denoiser: Denoiser, chain: GaussianChain, state: Tensor, cond: Tensor | None, draws: Draws, window: Window = None
) -> Drawn:
    """Block verification of a diffusion model (Soen et al. 2026; Sun et al. 2025, algorithm 2), with the Free Drafter.
    The number of accepted drafts depends on the noises after them, so `draws` must differ in each round."""
    network, path, accepted, held = _Network(denoiser, chain, cond), [state], list[int](), None
    while len(path) <= len(chain):
        step = len(path) - 1
        sigma, draw = _open(chain, draws, len(accepted), step, window)
        states, means, x0 = free_drafter(network, path[-1], held, sigma, draw, step)
        targets = _means(chain, states, x0, step)
        # For each draft: the gap of the means, and its place on the line from one to the other.
        gaps = [_gap(mean, targets[i], sigma[i]) for i, mean in enumerate(means)]
        deltas = [float(gap.norm()) for gap in gaps]
        units = [gap / delta if delta > 0 else gap for gap, delta in zip(gaps, deltas, strict=True)]
        places = [float((unit * draw[i].noise).sum()) for i, unit in enumerate(units)]
        tau, log_p = block_length(deltas, places, [draw[i].accept for i in range(len(means))])
        path += states[1 : tau + 1]
        if tau < len(means):
            moved = residual_coordinate(log_p, deltas[tau], draw[tau].redraw) - places[tau]
            path.append(means[tau] + sigma[tau] * (draw[tau].noise + (moved * units[tau]).to(state)))
        else:
            path.append(targets[-1] + sigma[-1] * draw[-1].noise)
        accepted.append(tau)
        held = x0[tau]
    return Drawn(path[-1], network.calls, accepted, path)


def free_drafter(
    network: "_Network", root: Tensor, held: Tensor | None, sigma: list[float], draw: list[Draw], step: int
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """The Free Drafter (Soen et al. 2026). Return the states from `root` on, the drafts' means, and x0 at the states.
    The guess is the x0 that the last verification has `held` at the parent of the root; in the first round, a call for
    the root."""
    known = network([root], step) if held is None else []
    guess = known[0] if held is None else held
    states, means = [root], []
    for i in range(len(draw) - 1):
        means.append(network.chain.mean(states[-1], guess, step + i))
        states.append(means[-1] + sigma[i] * draw[i].noise)
    return states, means, network(states, step, known)


def block_length(deltas: list[float], places: list[float], uniforms: list[float]) -> tuple[int, float]:
    """Return (tau, log p_tau) of Sun et al. 2025, algorithm 2: the number of accepted drafts, and the target's weight
    after them. `deltas`: gaps of the means in units of sigma; `places`: coordinates of the drafts along them."""
    tau, log_p, log_p_tau = 0, 0.0, 0.0
    for i, uniform in enumerate(uniforms, start=1):
        # p_i = min(1, p_{i-1} q/p), with the ratio of the densities of draft i.
        log_p = min(0.0, log_p + deltas[i - 1] * places[i - 1] - deltas[i - 1] ** 2 / 2)
        if i == len(uniforms):
            h = math.exp(log_p)
        else:  # mass that draft i + 1 leaves of p_i q, by itself and 1 - p_i
            mass = residual_mass(log_p, deltas[i])
            h = 1.0 if log_p == 0 else mass / (mass - math.expm1(log_p))
        if uniform < h:  # the longest prefix that passes: a failed test does not end the search
            tau, log_p_tau = i, log_p
    return tau, log_p_tau


def residual_mass(log_p: float, delta: float) -> float:
    """Integral of max(p q - p_draft, 0) over two Gaussians, `delta` apart in units of sigma."""
    if delta == 0:
        return 0.0
    edge = delta / 2 - log_p / delta  # from the draft's mean: beyond it, p q is the larger one
    return max(0.0, math.exp(log_p) * _tail(edge - delta) - _tail(edge))


def residual_coordinate(log_p: float, delta: float, uniform: float) -> float:
    """Return the place, from the draft's mean, where the distribution function of the density proportional to max(p q -
    p_draft, 0) equals `uniform`. Found by halving an interval."""
    low = delta / 2 - log_p / delta
    high = max(low, delta) + 40  # no mass lies beyond
    wanted = (1 - uniform) * residual_mass(log_p, delta)
    for _ in range(60):
        middle = (low + high) / 2
        mass = math.exp(log_p) * _tail(middle - delta) - _tail(middle)
        low, high = (middle, high) if mass > wanted else (low, middle)
    return (low + high) / 2


# -- shared by all of them -------------------------------------------------------------------------------------------


class _Network:
    """The network's prediction of the clean chunk, x0, at states of consecutive steps, in one call."""

    def __init__(self, denoiser: Denoiser, chain: GaussianChain, cond: Tensor | None):
        self.denoiser, self.chain, self.cond, self.calls = denoiser, chain, cond, 0

    def __call__(self, states: list[Tensor], step: int, known: Sequence[Tensor] = ()) -> list[Tensor]:
        """Return x0 at each of `states`, the first of which is at `step`; those of the first states may be `known`
        already."""
        x0 = list(known)
        if asked := states[len(known) :]:
            self.calls += 1
            timesteps = self.chain.timesteps[step + len(known) : step + len(states)]
            cond = None if self.cond is None else self.cond.expand(len(asked), *self.cond.shape)
            outputs = self.denoiser(torch.stack(asked), timesteps, cond)
            x0 += [self.chain.x0(outputs[i], state, step + len(known) + i) for i, state in enumerate(asked)]
        return x0


def fresh_draws(generator: torch.Generator, state: Tensor) -> Draws:
    """Return independent draws for each step of each round, as all papers have it, for chunks like `state` (H, D)."""

    @functools.cache
    def draws(round: int, step: int) -> Draw:
        noise = torch.randn(state.shape, generator=generator, dtype=state.dtype)
        return Draw(noise, *torch.rand(2, generator=generator, dtype=torch.float64).tolist())

    return draws


def _open(chain: GaussianChain, draws: Draws, round: int, step: int, window: Window) -> tuple[list[float], list[Draw]]:
    """Return sigma and the draws of a round's steps: those of its drafts, and one more."""
    end = len(chain) if window is None else min(step + window + 1, len(chain))
    return chain.sigma[step:end].tolist(), [draws(round, n) for n in range(step, end)]


def _means(chain: GaussianChain, states: list[Tensor], x0: list[Tensor], step: int) -> list[Tensor]:
    return [chain.mean(state, x0[i], step + i) for i, state in enumerate(states)]


def _gap(draft_mean: Tensor, target_mean: Tensor, sigma: float) -> Tensor:
    """(H, D) from the draft's mean to the target's in units of sigma, float64."""
    if sigma == 0:
        raise SpecpolicyError("a step of the chain adds no noise, so there is nothing to speculate on exactly")
    return (target_mean.double() - draft_mean.double()) / sigma


def _tail(x: float) -> float:
    """The probability that a standard normal number exceeds x."""
    return math.erfc(x / math.sqrt(2)) / 2
