"""Minimal iterative policies: their loss by its definition, and a small one that is trained, saved and asked."""

import csv

import pytest
import torch
from torch import nn
from toy_windows import Curve, windows

from specpolicy import SpecpolicyError, load_policy
from specpolicy.cli import main
from specpolicy.denoisers.mip import MIPDenoiser
from specpolicy.policy import DiffusionPolicy
from specpolicy.training import TrainingOptions, train
from specpolicy.training.objectives import make_objective
from specpolicy.training.regressing import Regressing

OBSERVED = {"position": torch.zeros(2, 2), "object": torch.zeros(2, 3)}


@pytest.fixture
def mip_config(policy_config):
    return {**policy_config, "chain": None, "mip": {"time": 0.9}}


@pytest.fixture
def policy(mip_config):
    torch.manual_seed(0)
    return DiffusionPolicy.from_config(mip_config)


def test_the_loss_is_that_of_both_answers(policy):
    objective, generator = Regressing(policy), torch.Generator().manual_seed(1)
    target = torch.randn(5, 8, 2, generator=generator)
    draws, seen = objective.draw(target.shape, generator), []

    def network(state, time, cond):
        seen.append((state, time, cond))
        return torch.cat([target + 0.2, target - 0.03])

    cond = torch.randn(5, 3, generator=generator)
    loss = objective.loss(MIPDenoiser(network, 0.9, 10), target, cond, draws, half=False)
    assert float(loss) == pytest.approx((0.2 / 0.9) ** 2 + (0.03 / 0.1) ** 2, rel=1e-4)
    (state, time, told), zero = seen[0], torch.zeros_like(target)
    torch.testing.assert_close(state, torch.cat([zero, target + 0.1 * draws["noise"]]))
    torch.testing.assert_close(time, torch.tensor([0.0] * 5 + [9.0] * 5))
    assert torch.equal(told, torch.cat([cond, cond]))


def test_a_chunk_is_the_second_answer_whatever_the_noise(policy):
    network, cond = policy.denoiser.network, policy.encode({key: value[None] for key, value in OBSERVED.items()})
    with torch.no_grad():
        first = network(torch.zeros(1, 8, 2), torch.zeros(1), cond).clamp(-1, 1)
        second = network(first, torch.tensor([90.0]), cond).clamp(-1, 1)
    for seed in (0, 1):
        drawn = policy.predict(OBSERVED, generator=torch.Generator().manual_seed(seed), return_states=True)
        torch.testing.assert_close(drawn.states[1:, 0], torch.cat([first, second]))
        assert drawn.stats.calls.tolist() == [2]
    alone = policy.predict(OBSERVED, sampler="ddpm-1", return_states=True)
    torch.testing.assert_close(alone.states[1], first)
    assert alone.stats.calls.tolist() == [1]


class OneLayer(nn.Module):
    """A network of 8 actions of 2 numbers, for 10 numbers of a condition, that a compiler is soon done with."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(16 + 1 + 10, 16)

    def forward(self, x, t, cond):
        return self.layer(torch.cat([x.flatten(1), t[:, None] / 50, cond], dim=1)).view_as(x)


@pytest.mark.parametrize("engine", ("compile", "openvino"))
def test_engines_run_it(policy, engine):
    if engine == "compile":
        policy.denoiser.network = OneLayer()
    found = policy.with_engine(engine).predict(OBSERVED).actions
    torch.testing.assert_close(found, policy.predict(OBSERVED).actions, rtol=1e-4, atol=1e-4)


def test_it_learns_and_comes_back_the_same(mip_config, tmp_path):
    torch.manual_seed(0)
    curve, options = Curve(), TrainingOptions(steps=60, batch_size=32, log_every=20, warmup_steps=5, save_every=60)
    policy = train(DiffusionPolicy.from_config(mip_config), windows(), None, options, tmp_path, curve)
    assert curve.losses[-1] < 0.8 * curve.losses[0]
    loaded = load_policy(tmp_path)
    assert loaded.fingerprint == policy.fingerprint and repr(loaded.chain) == repr(policy.chain)
    assert "mip, 2/2 steps" in repr(loaded.chain)
    assert (loaded.best_sampler, loaded.quick_sampler, loaded.compared, loaded.steps) == ("ddpm", "ddpm", ("ddpm",), 2)
    assert torch.equal(loaded.predict(OBSERVED).actions, policy.eval().predict(OBSERVED).actions)
    assert isinstance(make_objective(loaded), Regressing)


@pytest.mark.parametrize(
    ("sampler", "message"),
    (
        ("block", "adds no noise"),
        ("recycled", "adds no noise"),
        ("dpm_solver", "this is one of regression: use ddpm"),
        ("euler", "solves the equation of a flow policy"),
        ("ddim-10", "steps must lie between 1 and train_steps=2"),
    ),
)
def test_samplers_that_it_has_nothing_for(policy, sampler, message):
    with pytest.raises(SpecpolicyError, match=message):
        policy.predict(OBSERVED, sampler=sampler)


@pytest.mark.parametrize(
    ("changed", "message"),
    (
        ({"chain": {"steps": 20}}, "chain and mip are both there: leave one out"),
        ({"mip": {"time": 1.0}}, "time is 1.0: it must be a number from 0.01 to 0.999"),
        ({"conditioning": "inpainting"}, "mip: inpainting conditioning is of diffusion policies alone"),
        ({"prefix": 2}, "prefix=2: mip policies learn to continue no actions"),
    ),
)
def test_configurations_that_are_refused(mip_config, changed, message):
    with pytest.raises(SpecpolicyError, match=message):
        DiffusionPolicy.from_config({**mip_config, **changed})


def test_it_is_trained_and_played_from_the_command_line(tmp_path, write_demonstrations, capsys):
    data, run, played = write_demonstrations(tmp_path / "pendulum.hdf5"), tmp_path / "run", tmp_path / "played"
    tiny = ["policy.network.down_dims=[16,32]", "policy.horizon=8", "policy.n_action_steps=4", "batch_size=8"]
    count = ["steps=2", "log_every=1", "save_every=2", "threads=1"]
    task = ["task=gym", "task.id=Pendulum-v1"]
    assert main(["train", *task, *tiny, *count, "policy.objective=mip", f"data={data}", f"output={run}"]) == 0
    assert main(["convert", f"path={run}", f"out={tmp_path / 'copy'}"]) == 0
    assert "regresses in 2 steps without noise, the second at time 0.9" in capsys.readouterr().out
    short = ["engine=eager", "episodes=2", "max_seconds=0.5", "videos=0", "workers=0"]
    assert main(["evaluate", *task, *short, f"policy={run}", "samplers=[ddpm,ddpm-1]", f"output={played}"]) == 0
    rows = list(csv.DictReader((played / "episodes.csv").open()))
    assert {row["condition"] for row in rows} == {"ddpm", "ddpm-1"}
    capsys.readouterr()
    assert main(["calibrate", f"policy={run}", f"output={tmp_path / 'out'}"]) == 2
    assert "adds no noise" in capsys.readouterr().err and not (tmp_path / "out").exists()
