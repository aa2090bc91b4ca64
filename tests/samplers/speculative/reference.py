"""Slow, literal transcriptions of published samplers, one chunk at a time, to compare with.

They share nothing with specpolicy.samplers.speculative but the chain's single step.
"""

import math

import torch


def normal_cdf(x: float) -> float:
    """Phi(x)."""
    return 0.5 * math.erfc(-x / math.sqrt(2))


def autospeculative_decoding(denoiser, chain, state, generator):
    """(chunk (H, D), network calls): ASD of Hu et al. 2025, drafting to the end of the chain from `state` (H, D)."""
    level, calls = len(chain) - 1, 0
    while level >= 0:
        frozen = _evaluate(denoiser, chain, [state], [level])[0]
        calls += 1
        # Propose: hold what the network said at the current state.
        drafts, states = [], [state]
        for k in range(level, -1, -1):
            mean = chain.mean(frozen, states[-1], k)
            noise = _normal(state, generator)
            drafts.append((mean, noise))
            states.append(mean + float(chain.sigma[k]) * noise)
        # Evaluate all proposals but the last, which nothing follows, in one call.
        targets = [frozen]
        if level > 0:
            targets += _evaluate(denoiser, chain, states[1:-1], list(range(level - 1, -1, -1)))
            calls += 1
        # Verify with the Gaussian rejection sampler, up to the first rejection.
        for index, (draft_mean, noise) in enumerate(drafts):
            k, sigma = level - index, float(chain.sigma[level - index])
            target_mean = chain.mean(targets[index], states[index], k)
            if sigma == 0:
                return target_mean, calls
            gap = (target_mean - draft_mean).double() / sigma
            uniform = float(torch.rand(1, generator=generator, dtype=torch.float64))
            log_ratio = float((gap * noise).sum() - gap.square().sum() / 2)
            if uniform <= math.exp(min(0.0, log_ratio)):
                state = states[index + 1]
                continue
            unit = gap / gap.norm()
            state = target_mean + sigma * (noise - 2 * (unit * noise).sum() * unit).to(target_mean)
            break
        level = level - index - 1
    return state, calls


def block_verification_with_free_drafter(denoiser, chain, state, generator):
    """(chunk (H, D), network calls): Soen et al. 2026, drafting to the end of the chain (of two steps or more)
    from `state` (H, D)."""
    level, calls, held = len(chain) - 1, 0, None
    while level >= 0:
        if held is None:
            held = _evaluate(denoiser, chain, [state], [level])[0]
            calls += 1
        window = level  # every step that adds noise; the last one does not
        states, means, noises = [state], [], []
        for k in range(level, 0, -1):
            means.append(chain.mean(held, states[-1], k))
            noises.append(_normal(state, generator))
            states.append(means[-1] + float(chain.sigma[k]) * noises[-1])
        outputs = _evaluate(denoiser, chain, states, list(range(level, -1, -1)))
        calls += 1
        deltas, coordinates, units, targets = [], [], [], []
        for index in range(window):
            k, sigma = level - index, float(chain.sigma[level - index])
            targets.append(chain.mean(outputs[index], states[index], k))
            gap = (targets[-1] - means[index]).double() / sigma
            deltas.append(float(gap.norm()))
            units.append(gap / max(deltas[-1], 1e-300))
            coordinates.append(float((units[-1] * noises[index]).sum()))
        uniforms = torch.rand(window, generator=generator, dtype=torch.float64).tolist()
        tau, p = block_length(deltas, coordinates, uniforms)
        k, sigma = level - tau, float(chain.sigma[level - tau])
        if tau == window:
            state = chain.mean(outputs[tau], states[tau], k) + sigma * _normal(state, generator)
        else:
            across = noises[tau].double() - coordinates[tau] * units[tau]
            along = residual_coordinate(p, deltas[tau], generator)
            state = means[tau] + sigma * (across + along * units[tau]).to(state)
        held, level = outputs[tau], level - tau - 1
    return state, calls


def block_length(deltas, coordinates, uniforms):
    """(tau, p_tau) of block verification for one window: lists of gaps, coordinates and uniform numbers."""
    window = len(deltas)
    p = [1.0]
    for delta, coordinate in zip(deltas, coordinates, strict=True):
        p.append(min(1.0, p[-1] * math.exp(min(700.0, delta * coordinate - delta**2 / 2))))
    tau = 0
    for i in range(1, window + 1):
        if i == window:
            chance = p[i]
        elif p[i] == 1:
            chance = 1.0
        else:
            mass = residual_mass(p[i], deltas[i])
            chance = mass / (mass + 1 - p[i])
        if uniforms[i - 1] <= chance:
            tau = i
    return tau, p[tau]


def residual_mass(p: float, delta: float) -> float:
    """Integral of max(p q - p_draft, 0)."""
    if p == 0 or delta == 0:
        return 0.0
    edge = math.log(p) / delta
    return max(0.0, p * normal_cdf(delta / 2 + edge) - normal_cdf(edge - delta / 2))


def residual_coordinate(p: float, delta: float, generator) -> float:
    """One draw from the density in proportion to max(p phi(s - delta) - phi(s), 0), by rejection from the target."""
    while True:
        s = delta + float(torch.randn(1, generator=generator, dtype=torch.float64))
        ratio = math.exp(min(700.0, delta**2 / 2 - delta * s)) / p  # phi(s) / (p phi(s - delta))
        if float(torch.rand(1, generator=generator, dtype=torch.float64)) < 1 - ratio:
            return s


def _evaluate(denoiser, chain, states, levels):
    """Unclipped x0 of each state at its level, in one call of the network."""
    batch = torch.stack(states)
    output = denoiser(batch, chain.timesteps[torch.tensor(levels)], None)
    return [chain.x0(output[i], states[i], level) for i, level in enumerate(levels)]


def _normal(like, generator):
    return torch.randn(like.shape, generator=generator, dtype=like.dtype)
