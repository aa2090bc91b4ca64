"""Records of the policy's own evaluations: along sequential chains, and in the rounds of the calibrated sampler."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from specpolicy.diffusion import GaussianChain
from specpolicy.samplers.base import Chunks, Denoiser, NoiseSource
from specpolicy.samplers.recycled.drafter import Evaluations, RecycledDrafter
from specpolicy.samplers.rounds.batch import Batch, BatchWindow
from specpolicy.samplers.speculative.loop import Lengths, longest_windows, speculate
from specpolicy.samplers.speculative.problem import Drafts
from specpolicy.samplers.speculative.verifiers import Reflection, Verdict

BATCH = 64  # chains that are sampled together
OnChains = Callable[[int], object]


@dataclass
class Evaluated:
    """States at which the network was evaluated.

    `condition` (N,): index of the condition. `steps` (N,), `timesteps` (N,), `states` and `x0` (N, H*D). `chain` (N,):
    number of the chain; evaluations of one chain at one step stand together, in the order they were made. `weight`
    (N,): the gap that an error of x0 of length one makes there, zero at the last step, which is never drafted.
    """

    condition: Tensor
    steps: Tensor
    timesteps: Tensor
    weight: Tensor
    states: Tensor
    x0: Tensor
    chain: Tensor

    def __len__(self) -> int:
        """Number of evaluations."""
        return len(self.steps)

    def pairs(self) -> Tensor:
        """(P,) indices i such that i and i + 1 are evaluations of one chain at one step."""
        same = (self.chain[1:] == self.chain[:-1]) & (self.steps[1:] == self.steps[:-1])
        return same.nonzero().flatten()

    @classmethod
    def of(
        cls, chain: GaussianChain, condition: Tensor, steps: Tensor, states: Tensor, x0: Tensor, number: Tensor
    ) -> "Evaluated":
        """Make the record of evaluations at `steps` of `chain`; `number` (N,) tells its runs apart."""
        scale = (chain.x0_weight / chain.gap_scale).to(states.device, states.dtype)
        weight = scale[steps] * (steps < len(chain) - 1)
        return cls(condition, steps, chain.timesteps_on(states.device)[steps], weight, states, x0, number)

    @classmethod
    def join(cls, parts: "list[Evaluated]") -> "Evaluated":
        """Join several records; chains stay apart."""
        offset, moved = 0, []
        for part in parts:
            moved.append(replace(part, chain=part.chain + offset))
            offset += int(part.chain.max()) + 1 if len(part) else 0
        return cls(*(torch.cat([getattr(part, name) for part in moved]) for name in cls.__dataclass_fields__))


def record_sequential(
    denoiser: Denoiser,
    chain: GaussianChain,
    shape: torch.Size,
    cond: Tensor | None,
    chosen: Tensor,
    noise: Callable[[int], NoiseSource],
    on_chains: OnChains = lambda count: None,
) -> Evaluated:
    """Record evaluations along the sequential chain, one chain for each index `chosen` (N,) of a condition."""
    timesteps, parts = chain.timesteps_on(chosen.device), []
    for rows in chosen.split(BATCH):
        source, count = noise(len(rows)), len(rows)
        state = source.normal(*shape)
        states, x0s = [], []
        for step in range(len(chain)):
            steps = torch.full((count,), step, device=chosen.device)
            output = denoiser(state, timesteps[steps], None if cond is None else cond[rows])
            x0 = chain.x0(output, state, steps)
            states.append(state.flatten(1))
            x0s.append(x0.flatten(1))
            state = chain.mean(state, x0, steps) + chain.shock(source.normal(*shape), steps)
        every = torch.arange(len(chain), device=chosen.device)
        numbers = torch.arange(count, device=chosen.device)
        parts.append(
            Evaluated.of(
                chain,
                rows.repeat_interleave(len(chain)),
                every.repeat(count),
                torch.stack(states, dim=1).flatten(0, 1),
                torch.stack(x0s, dim=1).flatten(0, 1),
                numbers.repeat_interleave(len(chain)),
            )
        )
        on_chains(count)
    return Evaluated.join(parts)


def record_scattered(
    denoiser: Denoiser,
    chain: GaussianChain,
    shape: torch.Size,
    cond: Tensor,
    noise: Callable[[int], NoiseSource],
    generator: torch.Generator,
    count: int,
    on_chains: OnChains = lambda count: None,
) -> Evaluated:
    """Record a few evaluations at each of `cond` (N, ...): at the first step and at other random steps of `chain`,
    along the shorter chain of these steps."""
    parts = []
    for rows in torch.arange(len(cond), device=cond.device).split(BATCH):
        later = 1 + torch.randperm(len(chain) - 1, generator=generator)[: count - 1]
        steps = torch.cat([torch.zeros(1, dtype=torch.int64), later.sort().values])
        shorter = GaussianChain(chain.process, chain.timesteps[steps], chain.eta)
        found = record_sequential(denoiser, shorter, shape, cond, rows, noise)
        steps = steps.to(cond.device)[found.steps]
        parts.append(Evaluated.of(chain, found.condition, steps, found.states, found.x0, found.chain))
        on_chains(len(rows))
    return Evaluated.join(parts)


def invent(cond: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Make (count, ...) conditions near those of `cond` (N, ...).

    Each is moved by a part of the difference of two others, so numbers that usually change together do so here. The
    policy answers there too, and the student then learns from more observations than were played.
    """
    one, two, three = cond[torch.randint(len(cond), (3, count), generator=generator).to(cond.device)]
    part = torch.rand(count, *[1] * (cond.dim() - 1), generator=generator).to(cond).square()
    return one + part * (two - three)


class Recording(RecycledDrafter):
    """A recycled drafter that also keeps all evaluations."""

    def begin(self, problem: Batch) -> Evaluations:
        self.seen: list[tuple[Tensor, ...]] = []
        return super().begin(problem)

    def learn(
        self, memory: Evaluations, problem: Batch, window: BatchWindow, drafts: Drafts, x0: Tensor, verdict: Verdict
    ) -> Evaluations:
        valid = np.ones(window.steps.shape, bool) if window.valid is None else window.valid
        if drafts.known is not None:  # those of an earlier round are already recorded
            valid = valid & ~drafts.known.mask
        wanted = torch.from_numpy(valid).to(problem.device)
        chains = torch.from_numpy(problem.rows).to(problem.device)[:, None].expand_as(window.steps)
        parts = (chains, window.steps, drafts.states.flatten(2), x0.flatten(2))
        self.seen.append(tuple(part[wanted] for part in parts))
        return super().learn(memory, problem, window, drafts, x0, verdict)


def record_rounds(
    denoiser: Denoiser,
    chain: GaussianChain,
    shape: torch.Size,
    cond: Tensor | None,
    chosen: Tensor,
    noise: Callable[[int], NoiseSource],
    drafter: Recording,
    window: Lengths = None,
    on_chains: OnChains = lambda count: None,
) -> Evaluated:
    """Record evaluations in the rounds of the recycled sampler, one chain for each index `chosen` (N,) of a
    condition."""
    parts, limits = [], longest_windows(window, len(chain))
    for rows in chosen.split(BATCH):
        source = noise(len(rows))
        chunks = Chunks(source.normal(*shape), None if cond is None else cond[rows], source)
        speculate(Batch(denoiser, chain, chunks, limits), drafter, Reflection())
        chains, steps, states, x0 = (torch.cat(column) for column in zip(*drafter.seen, strict=True))
        order = torch.argsort(chains * len(chain) + steps, stable=True)
        parts.append(Evaluated.of(chain, rows[chains[order]], steps[order], states[order], x0[order], chains[order]))
        on_chains(len(rows))
    return Evaluated.join(parts)
