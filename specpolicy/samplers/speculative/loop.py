"""The one loop of all exact speculative samplers: draft a window, evaluate it in one call, commit what is accepted.

A round: the drafter proposes the next states of each row; the network evaluates the current state and every draft
in one batched call; the verifier accepts a prefix and says where the first state after it lies; the row goes on from
there. Rows get on at their own pace, so the states of one call are at different steps; finished rows are dropped.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from specpolicy.diffusion import GaussianChain
from specpolicy.errors import SpecpolicyError
from specpolicy.samplers.base import Denoiser, NoiseSource, Sample, SampleStatistics, name_step, upload
from specpolicy.samplers.speculative.coupling import TINY, gaps
from specpolicy.samplers.speculative.drafters.base import Drafter
from specpolicy.samplers.speculative.verifiers.base import Decision, Verifier
from specpolicy.samplers.speculative.window import Draws, Outcome, Problem, Proposal, Window, cells, pick

Windows = int | Sequence[int] | None


def speculate(
    denoiser: Denoiser,
    chain: GaussianChain,
    state: Tensor,
    cond: Tensor | None,
    noise: NoiseSource,
    drafter: Drafter,
    verifier: Verifier,
    window: Windows = None,
    return_states: bool = False,
) -> Sample:
    """Draw chunks with exactly the law of the sequential sampler, from the initial noise `state` (B, H, D).

    `window`: most drafts in a round; one number, one per step of the chain (noisiest first), or None: to the end.

    Raises:
        SpecpolicyError: a chain without noise, a drafter and a verifier that are not exact together, a network that
            returns NaN or infinity.
    """
    check_exact(chain, drafter, verifier)
    count, shape = len(chain), state.shape[1:]
    limits = _limits(window, count)
    problem = Problem(denoiser, chain, state, cond, noise)
    memory = drafter.begin(problem)
    draws = Draws.fresh(noise, problem.rows, count, shape)
    position = torch.zeros(len(state), dtype=torch.int64)
    finished = torch.empty_like(state)
    rejections = torch.zeros(count, dtype=torch.int64)
    accepted: list[Tensor] = []
    evaluated: list[Tensor] = []
    trace = state.new_empty(count + 1, *state.shape) if return_states else None
    if trace is not None:
        trace[0] = state

    while len(problem):
        width = torch.minimum(limits[position], count - 1 - position)
        view = _open(state, position, width, draws)
        before = problem.evaluated[problem.rows]
        proposal = drafter.propose(memory, problem, view)
        if proposal.noise is not None:
            view.noise[:, : view.drafts] = proposal.noise
            draws.noise[cells(view.index(0, view.drafts))] = proposal.noise
        outcome, difference, decision = _verify(problem, view, proposal, verifier, width)
        state = _commit(problem, view, outcome, difference, decision)

        rejected = decision.accepted < width
        rejections.index_add_(0, position + decision.accepted, rejected.long())
        for record, numbers in ((accepted, decision.accepted), (evaluated, problem.evaluated[problem.rows] - before)):
            record.append(torch.full((len(finished),), -1).index_copy_(0, problem.rows, numbers))
        if trace is not None:
            _record(trace, problem, position, outcome, decision.accepted, state)
        position = position + decision.accepted + 1
        done = position == count
        if not done.all():
            memory = drafter.learn(memory, problem, view, outcome)
        if done.any():
            ended, left = done.nonzero().flatten(), (~done).nonzero().flatten()
            finished[upload(problem.rows[ended], state.device)] = state[upload(ended, state.device)]
            position, index = position[left], upload(left, state.device)
            state, draws, memory = state[index], draws.keep(index), drafter.keep(memory, index)
            problem.keep(left, index)
        if not verifier.keeps_noise and len(problem):
            draws = Draws.fresh(noise, problem.rows, count, shape)
    statistics = SampleStatistics(problem.calls, problem.evaluated, accepted, evaluated, rejections)
    return Sample(finished, statistics, trace)


def check_exact(chain: GaussianChain, drafter: Drafter, verifier: Verifier) -> None:
    """Raise unless speculation on this chain, with these parts, has the sequential sampler's law."""
    check_noise(chain)
    if drafter.reuses_noise and not verifier.keeps_noise:
        raise SpecpolicyError(
            f"drafter '{drafter.name}' reuses noises, and under '{verifier.name}' verification that is not exact "
            "(decisions there depend on later noises): use it with 'reflection' or 'residual' verification"
        )


def check_noise(chain: GaussianChain) -> None:
    """Raise unless every step of the chain, but perhaps the last, adds noise."""
    if not bool((chain.sigma[:-1] > 0).all()):
        raise SpecpolicyError(
            f"{chain} adds no noise to some steps, and without noise there is nothing to speculate on exactly: "
            "use a DDPM chain, DDIM with eta > 0, or the sequential sampler 'ddim'"
        )


def _limits(window: Windows, count: int) -> Tensor:
    """(K,) the longest window at each step."""
    if window is None:
        return torch.full((count,), count)
    limits = torch.as_tensor(window, dtype=torch.int64)
    if limits.dim() == 0:
        limits = limits.expand(count)
    if len(limits) != count or bool((limits < 1).any()):
        raise SpecpolicyError(f"window={window}: expected a positive number, one for each of {count} steps, or None")
    return limits


def _open(state: Tensor, position: Tensor, width: Tensor, draws: Draws) -> Window:
    """The window of each row: its steps and the noises and uniforms that lie there."""
    longest, device = int(width.max()), state.device
    if len(state) == 1 or bool((position == position[0]).all()):
        first = int(position[0])
        steps, valid = torch.arange(first, first + longest + 1, device=device).expand(len(state), -1), None
    else:
        first, reach = None, torch.arange(longest + 1)
        steps = upload((position[:, None] + reach).clamp(max=draws.noise.shape[1] - 1), device)
        valid = None if bool((width == longest).all()) else reach <= width[:, None]
    view = Window(state, steps, state, state, valid, first)
    at = cells(view.index())
    view.noise, view.uniforms = draws.noise[at], draws.uniform[at]
    return view


def _verify(
    problem: Problem, view: Window, proposal: Proposal, verifier: Verifier, width: Tensor
) -> tuple[Outcome, Tensor, Decision]:
    """Evaluate the root and the drafts, and decide; also (target mean - draft mean) / sigma, (B, W, H, D)."""
    drafts = view.drafts
    states = torch.cat([view.root[:, None], proposal.states], dim=1)
    known = None
    wanted, at = view.valid, view.index()
    if proposal.known is not None:
        known = pad(proposal.known[0], (1, 0))
        wanted, at = ~known if wanted is None else wanted & ~known, view.steps
    if proposal.root_x0 is None:
        x0 = problem.evaluate(states, at, wanted)
    else:
        rest = None if view.valid is None else view.valid[:, 1:]
        below = problem.evaluate(proposal.states, view.index(1), rest)
        x0 = torch.cat([proposal.root_x0[:, None], below], dim=1)
    if proposal.known is not None:
        there = upload(proposal.known[0], problem.device)[..., None, None]
        x0 = torch.cat([x0[:, :1], torch.where(there, proposal.known[1], x0[:, 1:])], dim=1)
    difference = problem.chain.gap(x0[:, :drafts], proposal.x0, view.index(0, drafts))
    delta, coordinate = gaps(difference, view.noise[:, :drafts])
    finite = x0.flatten(2).sum(-1).isfinite()

    # The only place of a round where the device is waited for. Decisions are made on the CPU, in float64.
    table = torch.stack([pad(delta, (0, 1)), pad(coordinate, (0, 1)), *view.uniforms.unbind(-1), finite]).cpu().double()
    delta, coordinate, first, second = table[:4]
    _check_finite(table[4] > 0, states, view, problem)
    decision = verifier.decide(delta[:, :drafts], coordinate[:, :drafts], first[:, :drafts], second, width)
    # A row goes on behind the state it took last; of a full window it still needs the last one, the furthest it has.
    settled = int(torch.minimum(decision.accepted + 1, width).min())
    return Outcome(states, x0, decision.accepted, settled, known), difference, decision


def _commit(problem: Problem, view: Window, outcome: Outcome, difference: Tensor, decision: Decision) -> Tensor:
    """The state (B, H, D) after the accepted drafts: the corrected one, or after a full window an ordinary step."""
    last = outcome.accepted
    step, noise = pick(view.steps, last), pick(view.noise, last)
    mean = problem.chain.mean(pick(outcome.states, last), pick(outcome.x0, last), step)
    if view.drafts:
        # Move the noise along the gap to its new coordinate; the parts orthogonal to the gap keep their law.
        gap = pick(difference, last.clamp(max=view.drafts - 1)).flatten(1)
        length = torch.linalg.vector_norm(gap, dim=1, keepdim=True).clamp(min=TINY)
        shift = upload(decision.shift.to(gap.dtype), problem.device)[:, None]
        noise = noise + (shift * (gap / length)).view_as(noise)
    return mean + problem.chain.shock(noise, step)


def _record(
    trace: Tensor, problem: Problem, position: Tensor, outcome: Outcome, accepted: Tensor, state: Tensor
) -> None:
    """Write the committed states of a round into `trace` (K+1, B, H, D)."""
    committed = torch.arange(outcome.states.shape[1] - 1) < accepted[:, None]
    row, column = committed.nonzero(as_tuple=True)
    trace[position[row] + column + 1, problem.rows[row]] = outcome.states[:, 1:][row, column]
    trace[position + accepted + 1, problem.rows] = state


def _check_finite(finite: Tensor, states: Tensor, view: Window, problem: Problem) -> None:
    """Raise a clear error if an evaluated state of the window gave NaN or infinity."""
    bad = ~finite if view.valid is None else ~finite & view.valid
    if bad.any():
        steps = view.steps.cpu()
        step = int(steps[bad].min())
        where = name_step(problem.chain.timesteps, step)
        given = states.flatten(2).sum(-1).isfinite().cpu()[bad & (steps == step)]
        if not given.all():  # the network had no chance
            raise SpecpolicyError(f"the draft of {where} is not finite: check the draft model")
        raise SpecpolicyError(
            f"the denoiser returned a value that is not finite at {where}: check the weights and the observation"
        )
