"""The loop at its edges: short chains, empty batches, huge gaps, networks that break down; and what it refuses."""

import pytest
import torch
from distribution_tests import innovation_p, innovations
from exactness_cases import CHAINS, DRAFTERS, Composed, poor_denoiser, skewed
from mixtures import MixtureDenoiser
from small_runs import EXACT, SHAPE, conditions, run

from specpolicy import GaussianChain, SpecpolicyError, make_sampler, sample
from specpolicy.model import Model
from specpolicy.samplers import Setting
from specpolicy.samplers.recycled.drafter import RecycledDrafter
from specpolicy.samplers.speculative.drafters import Free, FrozenRoot, Independent
from specpolicy.samplers.speculative.samplers import Speculation
from specpolicy.samplers.speculative.verifiers import VERIFIERS, Block, Reflection, Residual

# -- edges ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXACT)
def test_an_empty_batch(name):
    chain = CHAINS["ddpm"]
    out = sample(MixtureDenoiser(chain.process), chain, (0, *SHAPE), None, name, return_states=True)
    assert out.actions.shape == (0, *SHAPE) and out.states.shape == (21, 0, *SHAPE)
    assert len(out.stats.calls) == len(out.stats.rows) == 0


@pytest.mark.parametrize("name", EXACT)
def test_a_chain_of_one_step_is_one_call(name):
    chain = GaussianChain.ddpm(20, 1)
    out, counting = run(make_sampler(name), chain=chain)
    assert out.stats.calls.tolist() == out.stats.rows.tolist() == [1] * 6 and counting.calls == 1
    expected = run("ddpm", chain=chain)[0]
    torch.testing.assert_close(out.actions, expected.actions)


@pytest.mark.parametrize("name", EXACT)
def test_a_chain_of_two_steps(name):
    out, _ = run(make_sampler(name), chain=GaussianChain.ddpm(20, 2), batch=2000)
    p = innovation_p(
        *innovations(MixtureDenoiser(CHAINS["ddpm"].process), GaussianChain.ddpm(20, 2), out.states, conditions(2000))
    )
    assert p > 1e-4


@pytest.mark.parametrize("name", EXACT)
def test_a_window_longer_than_the_chain_drafts_to_the_end(name):
    long, all_of_it = (run(make_sampler(name, window=window), seed=3)[0] for window in (1000, None))
    assert torch.equal(long.actions, all_of_it.actions) and torch.equal(long.stats.rows, all_of_it.stats.rows)


@pytest.mark.parametrize("drafter", DRAFTERS)
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
def test_the_number_format_of_the_states_is_kept(drafter, dtype):
    """The network and the drafts are computed in it, too."""
    seen = set()

    def watching(x, t, cond):
        seen.add(x.dtype)
        return MixtureDenoiser(CHAINS["ddpm"].process)(x, t, cond)

    out, _ = run(Composed(DRAFTERS[drafter], Reflection(), 4), dtype=dtype, denoiser=watching)
    assert out.actions.dtype == out.states.dtype == dtype and seen == {dtype}


@pytest.mark.parametrize("verifier", VERIFIERS)
@pytest.mark.parametrize("scale", (1e3, 1e6, 1e12))
def test_a_huge_gap_leaves_the_distribution_of_the_chain(verifier, scale):
    """A draft model that is far off: all drafts are rejected, and the emitted noises are those of the chain. False
    alarm 1e-4."""
    chain = CHAINS["unclipped"]
    honest = poor_denoiser(chain)
    far = Independent(lambda x, t, cond: scale * (1 + honest(x, t, cond)))
    sampler = Composed(lambda chain, shape: far, VERIFIERS[verifier](), 1)
    out, _ = run(sampler, batch=500, chain=chain)
    assert out.states.isfinite().all()
    assert int(out.stats.rejections.sum()) == 500 * (len(chain) - 1)
    denoiser = MixtureDenoiser(chain.process)
    assert innovation_p(*innovations(denoiser, chain, out.states, conditions(500))) > 1e-4


@pytest.mark.parametrize("verifier", VERIFIERS)
@pytest.mark.parametrize("shape", ((1, 1), (1, 5), (7, 1)))
def test_chunks_of_one_coordinate_and_of_one_step(verifier, shape):
    """The last coordinate there is, in which all happens. False alarm 1e-4."""
    chain = GaussianChain.ddpm(12, prediction="sample", clip=None)

    def denoiser(x, t, cond):
        return torch.tanh(2 * x)

    sampler = Composed(skewed, VERIFIERS[verifier](), None)
    out = sample(denoiser, chain, (2000, *shape), None, sampler, torch.Generator().manual_seed(1), return_states=True)
    assert out.stats.rejections.sum() > 2000
    assert innovation_p(*innovations(denoiser, chain, out.states)) > 1e-4


# -- what is refused --------------------------------------------------------------------------------------------------


# Infinity survives only where x0 is not clipped, as in the sequential sampler.
@pytest.mark.parametrize("value, chain", ((float("nan"), "ddpm"), (float("inf"), "unclipped")))
@pytest.mark.parametrize("name", EXACT)
def test_a_network_that_breaks_down_is_named_with_its_step(name, value, chain):
    chain = CHAINS[chain]
    denoiser = MixtureDenoiser(chain.process)

    def broken(x, t, cond):
        output = denoiser(x, t, cond)
        return torch.where(t.view(-1, 1, 1) == 11, value, output)

    with pytest.raises(SpecpolicyError, match=r"not finite at step 8 \(timestep 11\)") as error:
        sample(broken, chain, (3, *SHAPE), None, name, torch.Generator().manual_seed(0))
    assert "\n" not in str(error.value)


def test_the_first_step_that_breaks_down_is_the_one_named():
    """Whatever follows from it breaks down as well."""
    chain = GaussianChain.ddpm(100, 10)

    def broken(x, t, cond):
        return torch.where(t.view(-1, 1, 1) <= 50, torch.nan, x)

    for name in EXACT:
        with pytest.raises(SpecpolicyError, match=r"step 4 \(timestep 50\)"):
            sample(broken, chain, (2, *SHAPE), None, name, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("verifier", VERIFIERS)
def test_a_draft_model_that_breaks_down_is_not_blamed_on_the_network(verifier):
    broken = Independent(lambda x, t, cond: torch.where(t.view(-1, 1, 1) == 15, torch.nan, torch.zeros_like(x)))
    with pytest.raises(SpecpolicyError, match=r"the draft of step 5 \(timestep 14\) is not finite"):
        run(Composed(lambda chain, shape: broken, VERIFIERS[verifier]()))


@pytest.mark.parametrize("name", EXACT)
def test_chains_without_noise_are_refused(name):
    denoiser = MixtureDenoiser(CHAINS["ddpm"].process)
    with pytest.raises(SpecpolicyError, match=r"adds no noise.*eta > 0"):
        run(make_sampler(name, steps=5, eta=0.0))
    with pytest.raises(SpecpolicyError, match="adds no noise"):
        sample(denoiser, CHAINS["ddpm"].with_ddim(5, eta=0.0), (1, *SHAPE), None, name)


def test_kept_noises_under_block_verification_are_refused():
    sampler = Composed(DRAFTERS["recycled"], Block())
    with pytest.raises(SpecpolicyError, match=r"'recycled' reuses noises.*'block'"):
        run(sampler)


@pytest.mark.parametrize("window", (0, -1, [1, 2], [0] * 20, []))
def test_impossible_windows_are_refused(window):
    chain = CHAINS["ddpm"]
    with pytest.raises(SpecpolicyError, match="window"):
        Speculation(chain, Free(), Block(), window)


@pytest.mark.parametrize(
    "options, word",
    (
        ({"drafter": "independent"}, "draft_denoiser="),
        ({"drafter": "corrected"}, "head="),
        ({"drafter": "medusa"}, "unknown drafter 'medusa'"),
        ({"drafter": "recycled"}, "unknown drafter 'recycled'"),
    ),
)
@pytest.mark.parametrize("name", ("reflection", "residual", "block"))
def test_drafters_that_cannot_be_made_say_what_they_need(name, options, word):
    with pytest.raises(SpecpolicyError, match=word):
        run(make_sampler(name, **options))


def test_each_name_is_its_papers_composition():
    chain = CHAINS["ddpm"]
    made = {name: make_sampler(name) for name in EXACT}
    setting = Setting(Model(MixtureDenoiser(chain.process)), chain, torch.Size(SHAPE))
    drawn = {name: sampler.bind(setting) for name, sampler in made.items()}
    parts = {name: (type(draw.drafter), type(draw.verifier)) for name, draw in drawn.items()}
    assert parts == {
        "asd": (FrozenRoot, Reflection),
        "reflection": (FrozenRoot, Reflection),
        "residual": (Free, Residual),
        "block": (Free, Block),
        "recycled": (RecycledDrafter, Reflection),
    }
