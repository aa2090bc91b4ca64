"""The one loop of all exact speculative samplers: draft a window, evaluate it in one call, commit the accepted states.

In a round the drafter proposes the next states of each row. The network evaluates the current state and every draft in
one batched call. The verifier accepts a prefix and places the first state after it. The row goes on from there. Chunks
have exactly the distribution of the sequential sampler of the same chain.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from specpolicy.diffusion import GaussianChain
from specpolicy.errors import SpecpolicyError
from specpolicy.samplers.base import Sample
from specpolicy.samplers.speculative.drafters.base import Drafter
from specpolicy.samplers.speculative.verifiers.base import Verifier

Lengths = int | Sequence[int] | None


def speculate(problem: Any, drafter: Drafter, verifier: Verifier) -> Sample:
    """Draw the chunks of a `Problem`.

    Raises:
        SpecpolicyError: a network that returns NaN or infinity.
    """
    memory = drafter.begin(problem)
    while problem.unfinished:
        window = problem.open()
        drafts = drafter.draft(memory, problem, window)
        x0 = problem.evaluate(window, drafts)
        verdict = verifier.decide(*problem.gaps(window, drafts, x0))
        problem.commit(window, drafts, x0, verdict)
        if problem.unfinished:
            memory = drafter.learn(memory, problem, window, drafts, x0, verdict)
        left = problem.leave()
        if left is not None:
            memory = drafter.keep(memory, left)
        if problem.unfinished and not verifier.keeps_noise:
            problem.redraw()
    return problem.sample()


def check_exact(chain: GaussianChain, drafter: Drafter, verifier: Verifier) -> None:
    """Raise unless speculation on this chain, with these parts, has the sequential sampler's distribution."""
    check_noise(chain)
    if drafter.reuses_noise and not verifier.keeps_noise:
        raise SpecpolicyError(
            f"drafter '{drafter.name}' reuses noises, and under '{verifier.name}' verification that is not exact "
            "(decisions there depend on later noises): use it with 'reflection' or 'residual' verification"
        )


def check_noise(chain: GaussianChain) -> None:
    """Raise unless every step of the chain adds noise, except perhaps the last."""
    if not bool((chain.sigma[:-1] > 0).all()):
        raise SpecpolicyError(
            f"{chain} adds no noise to some steps, and without noise there is nothing to speculate on exactly: "
            "use a DDPM chain, DDIM with eta > 0, or the sequential sampler 'ddim'"
        )


def longest_windows(window: Lengths, count: int) -> np.ndarray:
    """(K,) int64: the most drafts in a round from each step, at most the number of remaining steps.

    Raises:
        SpecpolicyError: not a positive number, one for each step, or None (to the end).
    """
    left = np.arange(count - 1, -1, -1)
    if window is None:
        return left
    limits = np.asarray(window)
    if limits.shape not in ((), (count,)) or limits.dtype.kind != "i" or (limits < 1).any():
        raise SpecpolicyError(f"window={window}: expected a positive number, one for each of {count} steps, or None")
    return np.minimum(limits, left)
