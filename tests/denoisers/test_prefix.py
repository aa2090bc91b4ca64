"""Policies whose network continues committed actions: what it sees, that samplers stay exact, what is refused."""

import copy

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from specpolicy import Committed, SpecpolicyError, calibrate, load_policy
from specpolicy.cli.observations import conditions
from specpolicy.distributions import same_distribution
from specpolicy.policy import DiffusionPolicy, PolicyConfig
from specpolicy.policy.histories import write_histories
from specpolicy.samplers.recycled.calibration import Effort

PREFIX, FIRST = 3, 1
KINDS = {
    "unet": {"kind": "unet", "diffusion_step_embed_dim": 16, "down_dims": [16, 32], "kernel_size": 3},
    "transformer": {"kind": "transformer", "n_layer": 2, "n_head": 2, "n_emb": 16},
}


@pytest.fixture(params=KINDS)
def policy(request, policy_config):
    """A policy with random weights: whatever they are, samplers have to draw from its chain."""
    torch.manual_seed(0)
    made = DiffusionPolicy.from_config({**policy_config, "network": KINDS[request.param], "prefix": PREFIX})
    with torch.no_grad():
        for parameter in made.denoiser.parameters():  # some begin at zero, and with them the condition says nothing
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def observed(rows=1, seed=0):
    source = torch.Generator().manual_seed(seed)
    return {
        "position": torch.randn(rows, 2, 2, generator=source),
        "object": torch.randn(rows, 2, 3, generator=source),
    }


def committed(count=2, known=5, seed=1):
    """Actions in the environment's units; the last of them lie where a normalised chunk is clipped."""
    actions = np.random.default_rng(seed).normal(size=(known, 2)) * [2, 4] + [0, 4]
    return Committed(actions, count, "trained")


def inputs(policy, counts=(0, 1, 2, 3, 7)):
    """Chunks, timesteps and conditions, one for each number of committed actions."""
    rows, source = len(counts), torch.Generator().manual_seed(2)
    x = torch.randn(rows, policy.horizon, 2, generator=source)
    actions = torch.randn(rows, 5, 2, generator=source)
    seen = policy.encode(observed(rows))[:, : -policy.prefix.size].unflatten(1, policy.prefix.seen)
    return x, torch.arange(rows) * 4, policy.prefix.pack(seen, actions, torch.tensor(counts)), seen, actions


def test_what_is_packed_comes_back(policy):
    _, _, cond, seen, actions = inputs(policy)
    found, values, known = policy.prefix.unpack(cond, policy.horizon)
    torch.testing.assert_close(found, seen, rtol=0, atol=0)
    for row, count in enumerate((0, 1, 2, 3, 3)):  # more than the prefix are not told
        assert known[row, :, 0].tolist() == [FIRST <= entry < FIRST + count for entry in range(policy.horizon)]
        torch.testing.assert_close(values[row, FIRST : FIRST + count], actions[row, :count], rtol=0, atol=0)
        assert not values[row][~known[row, :, 0]].any()


@torch.no_grad()
def test_the_network_sees_clean_actions_and_marks(policy):
    x, t, cond, seen, _ = inputs(policy)
    _, values, known = policy.prefix.unpack(cond, policy.horizon)
    painted = torch.cat([torch.where(known, values, x), known.float()], dim=2)
    output = policy.denoiser(x, t, cond)
    expected = policy.denoiser.network(painted, t, seen)
    free = ~known.expand_as(x)
    torch.testing.assert_close(output[free], expected[free], rtol=0, atol=0)
    # At committed entries the output predicts their values, and the state there says nothing.
    x0 = policy.denoiser.to_x0[0, t][:, None, None] * x + policy.denoiser.to_x0[1, t][:, None, None] * output
    torch.testing.assert_close(x0[~free], values[~free], rtol=0, atol=1e-4)
    other = policy.denoiser(torch.where(known, x + 1, x), t, cond)
    torch.testing.assert_close(other[free], output[free], rtol=0, atol=0)
    # The entries after them depend on their values and on their number.
    changed = cond.clone()
    changed[:, -policy.prefix.size] += 1
    moved = (policy.denoiser(x, t, changed) - output)[:, FIRST + PREFIX :].abs().amax(dim=(1, 2))
    assert moved[0] == 0 and (moved[1:] > 1e-4).all()


@torch.no_grad()
@pytest.mark.parametrize("rows", (1, 7))
def test_the_split_network_is_the_network(policy, rows):
    x, t, cond, _, _ = inputs(policy, tuple(row % 4 for row in range(rows)))
    split = policy.denoiser.split_denoiser(policy.horizon, rows)
    found = split(x, split.time_features(t % 20) + split.condition_features(cond))
    torch.testing.assert_close(found, policy.denoiser(x, t % 20, cond), rtol=1e-4, atol=1e-4)


def test_openvino_computes_it(policy):
    pytest.importorskip("openvino")
    on_engine = policy.with_engine("openvino", 4)
    on_engine.engine.warm_up()  # compares
    x, t, cond, _, _ = inputs(policy)
    with torch.inference_mode():
        torch.testing.assert_close(on_engine.engine(x, t, cond), policy.denoiser(x, t, cond), rtol=1e-4, atol=1e-4)
    given = committed(count=2)
    for sampler in ("ddpm", "block"):
        first = on_engine.predict(observed(), sampler, torch.Generator().manual_seed(0), committed=given).actions
        second = policy.predict(observed(), sampler, torch.Generator().manual_seed(0), committed=given).actions
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-3)


def test_committed_actions_stand_in_the_chunk_as_they_are(policy):
    given = committed(count=2)
    rows = [None, given, committed(count=5), None]
    generators = [torch.Generator().manual_seed(row) for row in range(4)]
    found = policy.predict(observed(4), "ddpm", generators, committed=rows).actions
    for row, count in ((1, 2), (2, PREFIX)):
        wanted = torch.as_tensor(rows[row].actions[:count], dtype=torch.float32)
        torch.testing.assert_close(found[row, FIRST : FIRST + count], wanted)
    assert np.abs(given.actions[:2] - [0, 4]).max() > 2  # beyond what a chain without them can draw
    # Nothing is committed in the other rows, which are drawn as ever, bit for bit.
    generators = [torch.Generator().manual_seed(row) for row in range(4)]
    free = policy.predict(observed(4), "ddpm", generators).actions
    torch.testing.assert_close(found[[0, 3]], free[[0, 3]], rtol=0, atol=0)
    assert (found[1, FIRST + PREFIX :] - free[1, FIRST + PREFIX :]).abs().max() > 1e-3


CHUNKS, LEVEL = 600, 1e-4  # false alarms of the tests below: 1e-4 each


@pytest.fixture(scope="module")
def short(small_policy_config):
    """A policy with random weights and a short chain."""
    torch.manual_seed(0)
    chain = {"train_steps": 20, "steps": 8}
    return DiffusionPolicy.from_config({**small_policy_config, "chain": chain, "prefix": PREFIX})


def drawn(policy, sampler, given, seed):
    """Free entries of chunks (CHUNKS, d) at one observation."""
    cond = {key: value.expand(CHUNKS, -1, -1) for key, value in observed().items()}
    out = policy.predict(cond, sampler, torch.Generator().manual_seed(seed), committed=given)
    return out.actions[:, FIRST + PREFIX :].flatten(1).double()


@pytest.mark.parametrize("sampler", ("asd", "block"))
def test_exact_samplers_draw_from_the_conditioned_chain(short, sampler):
    given = committed()
    found, expected = drawn(short, sampler, given, 1), drawn(short, "ddpm", given, 2)
    assert same_distribution(found, expected) > LEVEL


def test_its_calibration_is_of_chunks_that_continue_others(policy):
    alone = copy.copy(policy)
    alone.calibration = object()
    assert "linear" not in alone.ways and "trained" in alone.ways
    with pytest.raises(SpecpolicyError, match=r"stitching=linear: .*: stitching=trained, which it has learnt, or use"):
        alone.check_way("linear")


def test_calibration_meets_committed_actions(short, tmp_path):
    """Conditions to learn from hold 0 to 3 of the policy's own actions; with what is learnt from them the recycled
    sampler draws from the conditioned chain."""
    histories = {key: value.numpy() for key, value in observed(64).items()}
    write_histories(tmp_path / "seen.safetensors", histories)
    cond = conditions(short, OmegaConf.create({"observations": str(tmp_path / "seen.safetensors"), "seed": 0}))
    _, values, known = short.prefix.unpack(cond, short.horizon)
    counts = torch.bincount(known.sum(dim=(1, 2)), minlength=PREFIX + 1)
    assert len(counts) == PREFIX + 1 and counts.min() > 4  # 16 are expected of each
    assert values[known.expand_as(values)].abs().max() <= 1 and values.unique().numel() > 100
    torch.testing.assert_close(cond[:, :10], short.encode(observed(64))[:, :10], rtol=0, atol=0)
    effort = Effort(chains=24, repeated=6, repeats=4, invented=0, rounds=8, steps=(8,), passes=(), tests=8)
    learnt = calibrate(short.denoiser, short.chain, short.sample_shape, cond, effort=effort)
    own = copy.copy(short)
    own.calibration = learnt
    given = committed()
    assert same_distribution(drawn(own, "recycled", given, 1), drawn(short, "ddpm", given, 2)) > LEVEL


def test_controls_of_that_test_fail(short):
    """A sampler that is told nothing, or other actions, draws from another distribution."""
    expected = drawn(short, "ddpm", committed(), 2)
    for other in (None, committed(seed=5)):
        assert same_distribution(drawn(short, "block", other, 1), expected) < LEVEL


def test_configurations(policy_config, tmp_path, policy):
    assert "prefix" not in PolicyConfig.parse(policy_config).to_dict()  # old checkpoints say nothing of it
    policy.save(tmp_path)
    again = load_policy(tmp_path)
    assert again.config.prefix == PREFIX and again.prefix == policy.prefix and "trained" in again.ways
    first = policy.predict(observed(), "block", torch.Generator().manual_seed(0), committed=committed())
    second = again.predict(observed(), "block", torch.Generator().manual_seed(0), committed=committed())
    torch.testing.assert_close(first.actions, second.actions, rtol=0, atol=0)
    other = policy.predict(observed(), committed=Committed(np.zeros((2, 2)), 1, "inpaint")).actions
    torch.testing.assert_close(other[:, policy.first_action], torch.zeros(len(other), 2), rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    "change, complaint",
    (
        ({"prefix": 7}, "at most 6 can be committed"),
        ({"prefix": -1}, "prefix"),
        ({"prefix": 2, "conditioning": "local"}, "local conditioning leaves no place"),
        ({"prefix": 2, "conditioning": "inpainting"}, "inpainting conditioning leaves no place"),
    ),
)
def test_prefixes_that_do_not_fit(policy_config, change, complaint):
    with pytest.raises(SpecpolicyError, match=complaint):
        DiffusionPolicy.from_config({**policy_config, **change})


def test_a_policy_without_one_says_so(small_policy):
    assert "trained" not in small_policy.ways
    with pytest.raises(SpecpolicyError, match=r"policy\.prefix=8"):
        small_policy.predict(observed(), committed=committed())


def test_conditions_of_played_episodes_are_given_actions_as_well(short, monkeypatch):
    with torch.no_grad():
        seen = short.encode(observed(64))
    monkeypatch.setattr("specpolicy.cli.observations._play", lambda *arguments: seen)
    config = OmegaConf.create({"observations": None, "count": 64, "episodes": 2, "seed": 0})
    cond = conditions(short, config)
    counts = torch.bincount(short.prefix.unpack(cond, short.horizon)[2].sum(dim=(1, 2)), minlength=PREFIX + 1)
    assert len(counts) == PREFIX + 1 and counts.min() > 4  # 16 are expected of each
    torch.testing.assert_close(cond[:, :10], seen[:, :10], rtol=0, atol=0)
