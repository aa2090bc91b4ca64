"""An independent draft model: any smaller denoiser walks ahead (De Bortoli et al. 2025, section 3.1)."""

import torch

from specpolicy.samplers.base import Denoiser
from specpolicy.samplers.rounds.batch import Batch, BatchWindow
from specpolicy.samplers.speculative.drafters.base import Drafter
from specpolicy.samplers.speculative.problem import Drafts


class Independent(Drafter):
    """One network call a round, and one call of the draft model for each draft."""

    name = "independent"

    def __init__(self, draft_denoiser: Denoiser):
        self.draft_denoiser = draft_denoiser

    def draft(self, memory: None, problem: Batch, window: BatchWindow) -> Drafts:
        """See `Drafter.draft`."""
        chain, state = problem.chain, window.root
        states, guesses = [state], [window.hold(state)[:, :0]]
        for index in range(window.drafts):
            steps = window.steps[:, index]
            output = self.draft_denoiser(state, problem.timesteps[steps], problem.cond)
            x0 = chain.x0(output, state, steps)
            state = chain.mean(state, x0, steps) + chain.shock(window.noise[:, index], steps)
            states.append(state)
            guesses.append(x0[:, None])
        return Drafts(torch.stack(states, dim=1), torch.cat(guesses, dim=1))
