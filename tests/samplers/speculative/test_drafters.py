"""Drafters: what each proposes, against a plain walk with the same noises."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from exactness_cases import CHAINS, DRAFTERS, poor_denoiser
from mixtures import Counting, MixtureDenoiser, correction_head
from replay import Table, replay

from specpolicy import GaussianChain
from specpolicy.samplers.recycled.drafter import RecycledDrafter
from specpolicy.samplers.recycled.surrogates import GaussianSurrogate
from specpolicy.samplers.speculative.drafters import Corrected, Free, FrozenRoot, Independent
from specpolicy.samplers.speculative.verifiers import Reflection

SHAPE, BATCH, WINDOW = (2, 2), 3, 6
chains = pytest.mark.parametrize("chain", [CHAINS[name] for name in ("ddpm", "ddim", "unclipped")], ids=str)


def rounds_of(chain, drafter, denoiser=None, window=WINDOW, seed=0):
    """(rounds by row, noises, condition, sample) of a batch."""
    generator = torch.Generator().manual_seed(seed)
    state = torch.randn(BATCH, *SHAPE, generator=generator, dtype=torch.float64)
    cond = 0.3 * torch.randn(BATCH, *SHAPE, generator=generator, dtype=torch.float64)
    table = Table.draw(seed, BATCH, len(chain), SHAPE, dtype=torch.float64)
    denoiser = denoiser or MixtureDenoiser(chain.process)
    out, rounds = replay(denoiser, chain, state, cond, table, drafter, Reflection(), window)
    return rounds, table.noise, cond, out


def evaluate(denoiser, chain, state, step, cond):
    """x0 (H, D) at one state."""
    return chain.x0(denoiser(state[None], chain.timesteps[step : step + 1], cond[None]), state[None], step)[0]


def walk(chain, one, guesses):
    """The states after each step of a round, by the chain's ordinary step with `guesses` in place of the network's."""
    state, states = one.root, []
    for place, x0 in enumerate(guesses):
        step = one.start + place
        state = chain.mean(state, x0, step) + chain.shock(one.noise[place], step)
        states.append(state)
    return torch.stack(states) if states else one.states


@chains
@pytest.mark.parametrize("name", DRAFTERS)
def test_drafts_are_ordinary_steps_with_the_guesses_and_the_chains_noises(name, chain):
    rounds, noise, _, _ = rounds_of(chain, DRAFTERS[name](chain, SHAPE))
    for row in range(BATCH):
        assert len(rounds[row]) > 1
        for number, one in enumerate(rounds[row]):
            assert len(one.x0) == min(WINDOW, len(chain) - 1 - one.start)
            # The recycled drafter's last sweep guesses at the states of the sweep before, and steps with its guesses.
            torch.testing.assert_close(one.states, walk(chain, one, one.x0), rtol=1e-9, atol=1e-9)
            if number == 0 or not name.startswith("recycled"):  # later rounds of it rejoin earlier ones
                assert torch.equal(one.noise, noise[row, one.start : one.start + len(one.x0)])


@chains
def test_a_frozen_root_holds_what_the_network_says_there(chain):
    denoiser = MixtureDenoiser(chain.process)
    rounds, _, cond, _ = rounds_of(chain, FrozenRoot())
    for row in range(BATCH):
        for one in rounds[row]:
            expected = evaluate(denoiser, chain, one.root, one.start, cond[row])
            torch.testing.assert_close(one.x0, expected.expand_as(one.x0))


@chains
def test_the_free_drafter_holds_what_the_last_round_paid_for_at_the_parent_of_the_root(chain):
    denoiser = MixtureDenoiser(chain.process)
    rounds, _, cond, out = rounds_of(chain, Free())
    for row in range(BATCH):
        for number, one in enumerate(rounds[row]):
            parent = max(one.start - 1, 0) if number else 0
            expected = evaluate(denoiser, chain, out.states[parent, row], parent, cond[row])
            torch.testing.assert_close(one.x0, expected.expand_as(one.x0))


@chains
def test_an_independent_denoiser_walks_ahead(chain):
    draft = poor_denoiser(chain)
    rounds, _, cond, _ = rounds_of(chain, Independent(draft))
    for row in range(BATCH):
        for one in rounds[row]:
            parents = [one.root, *one.states[:-1]]
            for place, parent in enumerate(parents[: len(one.x0)]):
                expected = evaluate(draft, chain, parent, one.start + place, cond[row])
                torch.testing.assert_close(one.x0[place], expected)


def test_a_correction_head_is_added_to_the_frozen_root_and_clipped():
    chain = CHAINS["ddpm"]
    denoiser = MixtureDenoiser(chain.process)
    calls = []

    def head(root, x0, start, timesteps, cond):
        calls.append((len(root), timesteps.shape))
        assert (start[:, None] >= timesteps).all() and (timesteps.diff(dim=1) <= 0).all() and len(cond) == len(root)
        return 3 * correction_head(root, x0, start, timesteps, cond)

    rounds, _, cond, _ = rounds_of(chain, Corrected(head))
    clipped = 0
    for row in range(BATCH):
        for one in rounds[row]:
            if not len(one.x0):
                continue
            root_x0 = evaluate(denoiser, chain, one.root, one.start, cond[row])[None]
            timesteps = chain.timesteps[one.start : one.start + len(one.x0)]
            change = 3 * correction_head(one.root[None], root_x0, timesteps[:1], timesteps[None], None)[0]
            torch.testing.assert_close(one.x0, (root_x0 + change).clamp(-1, 1))
            torch.testing.assert_close(one.x0[0], root_x0[0])  # at the root itself there is nothing to correct
            clipped += int((one.x0.abs() == 1).sum())
    assert clipped > 0
    assert len(calls) == max(len([one for one in rounds[row] if len(one.x0)]) for row in range(BATCH))


class Oracle:
    """A surrogate that is the network itself, off by what `wrong` (H*D) adds, times its state."""

    def __init__(self, chain, wrong=0.0):
        self.denoiser, self.wrong = MixtureDenoiser(chain.process), wrong
        self.chain = chain

    def prepare(self, cond):
        """See `Surrogate.prepare`."""
        return cond.flatten(1)

    def placed(self, device, dtype):
        """See `Surrogate.placed`."""
        return self

    def look_up(self, timesteps):
        """See `Surrogate.look_up`."""
        return (timesteps,)

    def at(self, tables, features):
        """See `Surrogate.at`: an x0 prediction is what it gives, so the chain must be one of 'sample' predictions."""
        timesteps = tables[0].expand(len(features), -1)
        cond = features.repeat_interleave(timesteps.shape[1], dim=0).view(-1, *SHAPE)

        def guess(states):
            flat = states.flatten(0, 1).view(-1, *SHAPE)
            return self.denoiser(flat, timesteps.flatten(), cond).view_as(states) + self.wrong * states

        return guess


X0_CHAIN = GaussianChain.ddpm(20, prediction="sample")


def test_a_perfect_surrogate_is_never_rejected():
    """With as many sweeps as steps the drafts are those of a sequential walk: one call, and the sequential chunk."""
    rounds, _, cond, out = rounds_of(X0_CHAIN, RecycledDrafter(Oracle(X0_CHAIN), sweeps=20, stride=1), window=None)
    assert out.stats.calls.tolist() == [1] * BATCH and out.stats.rejections.sum() == 0
    denoiser = MixtureDenoiser(X0_CHAIN.process)
    for row in range(BATCH):
        state, start = out.states[0, row], rounds[row][0]
        for step in range(19):
            x0 = evaluate(denoiser, X0_CHAIN, state, step, cond[row]).clamp(-1, 1)
            torch.testing.assert_close(start.x0[step], x0, atol=1e-6, rtol=0)
            state = out.states[step + 1, row]


@pytest.mark.parametrize("sweeps", (0, 1, 3))
def test_after_so_many_sweeps_so_many_steps_are_those_of_a_walk(sweeps):
    """Each sweep guesses at the drafts of the one before, so one step more of each sweep is settled."""
    few, _, _, _ = rounds_of(X0_CHAIN, RecycledDrafter(Oracle(X0_CHAIN), sweeps, stride=1), window=None)
    many, _, _, _ = rounds_of(X0_CHAIN, RecycledDrafter(Oracle(X0_CHAIN), 20, stride=1), window=None)
    for row in range(BATCH):
        first, walked = few[row][0], many[row][0]
        settled = sweeps + 1
        torch.testing.assert_close(first.x0[:settled], walked.x0[:settled])
        assert not torch.allclose(first.x0[settled + 1], walked.x0[settled + 1], rtol=1e-9, atol=0)


def test_coarse_sweeps_guess_at_every_third_step_and_hold_the_difference():
    """Before the last sweep a step is off from the last evaluation by what the step guessed at before it is."""
    asked = []

    class Asking(Oracle):
        def at(self, tables, features):
            asked.append(tables[0].shape[-1])
            return super().at(tables, features)

    counts, chunks = {}, {}
    for stride in (1, 3):
        asked.clear()
        _, _, _, out = rounds_of(X0_CHAIN, RecycledDrafter(Asking(X0_CHAIN, 0.3), sweeps=6, stride=stride), window=None)
        counts[stride], chunks[stride] = list(asked), out.states
    # 19 drafts in the first round: all of them in the last sweep, every so many in those before; then all 20 states.
    assert counts[1][:3] == [19, 19, 20] and counts[3][:3] == [19, 7, 20]
    assert torch.equal(chunks[1][0], chunks[3][0]) and not torch.equal(chunks[1], chunks[3])


class Slope:
    """A surrogate that is wrong by a multiple of the state, for a network that always says zero."""

    SLOPE = 3.0

    def prepare(self, cond):
        """See `Surrogate.prepare`."""

    def placed(self, device, dtype):
        """See `Surrogate.placed`."""
        return self

    def look_up(self, timesteps):
        """See `Surrogate.look_up`."""
        return ()

    def at(self, tables, features):
        """See `Surrogate.at`."""
        return lambda states: self.SLOPE * states


def test_stale_evaluations_take_the_surrogates_error_away():
    """In one coordinate: where a step was evaluated once before, at y', the guess at y is off by what the error changes
    from y' to y; where it was twice, the secant takes all of that but 1 - 1 / 1.05 away."""
    chain = GaussianChain.ddpm(12, prediction="sample", clip=None)
    state = torch.randn(BATCH, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    table = Table.draw(0, BATCH, 12, (1, 1), dtype=torch.float64)
    drafter = RecycledDrafter(Slope(), sweeps=12, rejoin=False, stride=1)
    _, rounds = replay(lambda x, t, cond: torch.zeros_like(x), chain, state, None, table, drafter, Reflection())
    compared = {0: 0, 1: 0, 2: 0}
    for row in range(BATCH):
        seen = {step: [] for step in range(12)}
        for one in rounds[row]:
            evaluated = [one.root, *one.states]
            for place, x0 in enumerate(one.x0):
                y, before = evaluated[place], seen[one.start + place]
                share = {0: 1.0, 1: 1.0}.get(len(before), 1 - 1 / 1.05)
                expected = Slope.SLOPE * share * (y - before[-1] if before else y)
                torch.testing.assert_close(x0, expected, rtol=1e-9, atol=1e-9)
                compared[min(len(before), 2)] += 1
            for place, y in enumerate(evaluated):
                seen[one.start + place].append(y)
    assert min(compared.values()) > 5


LONG = (GaussianChain.ddpm(60), GaussianChain.ddpm(60, prediction="sample", clip=None))


@pytest.mark.parametrize("chain", (*LONG, GaussianChain.ddpm(100).with_ddim(50, eta=1.0)), ids=str)
def test_where_a_path_rejoins_the_one_before_it_takes_the_networks_own_steps(chain):
    """Known states are states of the round before, bit for bit; behind them the guess is what the network says."""
    denoiser = MixtureDenoiser(chain.process)
    drafter = RecycledDrafter(GaussianSurrogate.smooth(chain.process.alpha_bar, SHAPE), rejoin=True)
    rounds, _, cond, out = rounds_of(chain, drafter, window=None)
    joined = 0
    for row in range(BATCH):
        seen: dict[int, torch.Tensor] = {}
        for one in rounds[row]:
            for place, (state, known) in enumerate(zip(one.states, one.known, strict=True)):
                step = one.start + place + 1
                if known:
                    assert torch.equal(state, seen[step])
                    if place + 1 < len(one.x0):
                        said = evaluate(denoiser, chain, state, step, cond[row])
                        torch.testing.assert_close(one.x0[place + 1], said)
                    joined += 1
                seen[step] = state
    assert joined > 10
    everything = [one for row in rounds.values() for one in row]
    assert int(out.stats.rows.sum()) == sum(len(one.x0) + 1 - int(one.known.sum()) for one in everything)


class RemembersAll(RecycledDrafter):
    """Also takes in what is known of states that are settled."""

    def learn(self, memory, problem, window, drafts, x0, verdict):
        """See `Drafter.learn`."""
        self.settled = getattr(self, "settled", 0) + int((verdict.accepted + 1).sum())
        nothing = replace(verdict, accepted=np.full_like(verdict.accepted, -1))
        return super().learn(memory, problem, window, drafts, x0, nothing)


@chains
@pytest.mark.parametrize("window", (None, tuple(1 + step * 7 % 11 for step in range(20))), ids=("end", "by step"))
def test_what_is_settled_is_of_no_more_use(chain, window):
    surrogate = GaussianSurrogate.smooth(chain.process.alpha_bar, SHAPE)
    window = window and window[: len(chain)]
    full = RemembersAll(surrogate)
    found = [rounds_of(chain, drafter, window=window)[0] for drafter in (RecycledDrafter(surrogate), full)]
    assert full.settled > 0
    for row in range(BATCH):
        for one, other in zip(found[0][row], found[1][row], strict=True):
            torch.testing.assert_close(one.states, other.states, rtol=1e-9, atol=1e-9)


def test_the_recycled_drafter_asks_the_network_once_a_round():
    chain = CHAINS["ddpm"]
    counting = Counting(MixtureDenoiser(chain.process))
    surrogate = GaussianSurrogate.smooth(chain.process.alpha_bar, SHAPE)
    rounds, _, _, out = rounds_of(chain, RecycledDrafter(surrogate), counting, window=None)
    assert counting.calls == max(len(rounds[row]) for row in range(BATCH)) == int(out.stats.calls.max())
