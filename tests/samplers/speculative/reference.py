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
    start, calls, count = 0, 0, len(chain)
    while start < count:
        frozen = _evaluate(denoiser, chain, [state], [start])[0]
        calls += 1
        # Propose: hold what the network said at the current state.
        drafts, states = [], [state]
        for n in range(start, count):
            mean = chain.mean(states[-1], frozen, n)
            noise = _normal(state, generator)
            drafts.append((mean, noise))
            states.append(mean + float(chain.sigma[n]) * noise)
        # Evaluate all proposals but the last, which nothing follows, in one call.
        targets = [frozen]
        if start < count - 1:
            targets += _evaluate(denoiser, chain, states[1:-1], list(range(start + 1, count)))
            calls += 1
        # Verify with the Gaussian rejection sampler, up to the first rejection.
        for index, (draft_mean, noise) in enumerate(drafts):
            n, sigma = start + index, float(chain.sigma[start + index])
            target_mean = chain.mean(states[index], targets[index], n)
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
        start = start + index + 1
    return state, calls


def block_verification_with_free_drafter(denoiser, chain, state, generator):
    """(chunk (H, D), network calls): Soen et al. 2026, drafting to the end of the chain (of two steps or more)
    from `state` (H, D)."""
    start, calls, held, count = 0, 0, None, len(chain)
    while start < count:
        if held is None:
            held = _evaluate(denoiser, chain, [state], [start])[0]
            calls += 1
        window = count - 1 - start  # every step that adds noise; the last one does not
        states, means, noises = [state], [], []
        for n in range(start, count - 1):
            means.append(chain.mean(states[-1], held, n))
            noises.append(_normal(state, generator))
            states.append(means[-1] + float(chain.sigma[n]) * noises[-1])
        outputs = _evaluate(denoiser, chain, states, list(range(start, count)))
        calls += 1
        deltas, coordinates, units, targets = [], [], [], []
        for index in range(window):
            n, sigma = start + index, float(chain.sigma[start + index])
            targets.append(chain.mean(states[index], outputs[index], n))
            gap = (targets[-1] - means[index]).double() / sigma
            deltas.append(float(gap.norm()))
            units.append(gap / max(deltas[-1], 1e-300))
            coordinates.append(float((units[-1] * noises[index]).sum()))
        uniforms = torch.rand(window, generator=generator, dtype=torch.float64).tolist()
        tau, p = block_length(deltas, coordinates, uniforms)
        n, sigma = start + tau, float(chain.sigma[start + tau])
        if tau == window:
            state = chain.mean(states[tau], outputs[tau], n) + sigma * _normal(state, generator)
        else:
            across = noises[tau].double() - coordinates[tau] * units[tau]
            along = residual_coordinate(p, deltas[tau], generator)
            state = means[tau] + sigma * (across + along * units[tau]).to(state)
        held, start = outputs[tau], start + tau + 1
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


def _evaluate(denoiser, chain, states, steps):
    """x0 of each state at its step, in one call of the network."""
    batch = torch.stack(states)
    output = denoiser(batch, chain.timesteps[torch.tensor(steps)], None)
    return [chain.x0(output[i], states[i], step) for i, step in enumerate(steps)]


def _normal(like, generator):
    return torch.randn(like.shape, generator=generator, dtype=like.dtype)
