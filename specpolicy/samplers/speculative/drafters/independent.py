"""An independent draft model: any smaller denoiser walks ahead (De Bortoli et al. 2025, section 3.1)."""

import torch

from specpolicy.samplers.base import Denoiser
from specpolicy.samplers.speculative.drafters.base import Drafter
from specpolicy.samplers.speculative.window import Problem, Proposal, Window


class Independent(Drafter):
    """One network call a round, and one call of the draft model for each draft."""

    name = "independent"

    def __init__(self, draft_denoiser: Denoiser):
        self.draft_denoiser = draft_denoiser

    def propose(self, memory: None, problem: Problem, window: Window) -> Proposal:
        """See `Drafter.propose`."""
        chain, state = problem.chain, window.root
        states, guesses = [], []
        for index in range(window.drafts):
            steps = window.steps[:, index]
            output = self.draft_denoiser(state, problem.timesteps[steps], problem.cond)
            x0 = chain.x0(output, state, steps)
            state = chain.mean(state, x0, steps) + chain.shock(window.noise[:, index], steps)
            states.append(state)
            guesses.append(x0)
        if not states:
            empty = window.noise[:, :0]
            return Proposal(empty, empty)
        return Proposal(torch.stack(states, dim=1), torch.stack(guesses, dim=1))
