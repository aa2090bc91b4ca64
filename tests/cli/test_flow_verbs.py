"""A flow policy from the command line: trained, played with its chain and its ODE, benchmarked, described."""

import csv
import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from specpolicy import load_policy
from specpolicy.cli import main
from specpolicy.cli.configuration import compose_verb
from specpolicy.cli.groups import SHIPPED
from specpolicy.cli.train import check

TINY = [
    *("task=gym", "task.id=Pendulum-v1", "policy.network.down_dims=[16,32]", "policy.horizon=8"),
    *("policy.n_action_steps=4", "policy.objective=flow", "policy.flow.times=20", "policy.flow.steps=10"),
    *("steps=2", "batch_size=8", "log_every=1", "save_every=2", "threads=1"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, write_demonstrations):
    place = tmp_path_factory.mktemp("flow")
    data = write_demonstrations(place / "pendulum.hdf5")
    rollout = ("rollout_every=2", "rollout_episodes=1", "rollout_seconds=0.3")
    assert main(["train", *TINY, f"data={data}", f"output={place / 'run'}", *rollout]) == 0
    return place / "run"


def test_a_flow_policy_is_trained_and_played(trained, tmp_path):
    policy = load_policy(trained)
    assert policy.config.flow.times == 20 and policy.config.chain is None
    output = tmp_path / "played"
    samplers = "samplers=[ddpm,block,ddpm-5,euler-5,rk4-2]"
    common = ["task=gym", "task.id=Pendulum-v1", f"policy={trained}", f"output={output}", "engine=eager"]
    play = ["episodes=2", "max_seconds=0.5", "videos=0", "workers=0"]
    assert main(["evaluate", *common, samplers, *play]) == 0
    rows = list(csv.DictReader((output / "episodes.csv").open()))
    assert {row["condition"] for row in rows} == {"ddpm", "block", "ddpm-5", "euler-5", "rk4-2"}


@pytest.mark.parametrize(
    ("objective", "given", "message"),
    (
        (
            "flow",
            "policy.chain.steps=16",
            "policy.chain.steps=16 is of objective=diffusion, this is flow: set policy.flow",
        ),
        ("flow", "policy.chain.prediction=sample", "this is flow: leave it out"),
        (
            "diffusion",
            "policy.flow.steps=10",
            "policy.flow.steps=10 is of objective=flow, this is diffusion: set policy.chain",
        ),
        (
            "diffusion",
            "policy.mip.time=0.8",
            "policy.mip.time=0.8 is of objective=mip, this is diffusion: leave it out",
        ),
        ("mip", "policy.chain.clip=0.5", "this is mip: set policy.mip.clip"),
        ("mip", "+policy.chain.ddim.eta=0.5", "this is mip: leave it out"),
    ),
)
def test_options_of_another_objective_are_refused(objective, given, message, tmp_path, capsys):
    arguments = ["task=gym", "task.id=Pendulum-v1", f"policy.objective={objective}", given]
    assert main(["train", *arguments, "data=nothing.hdf5", f"output={tmp_path / 'run'}"]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("policy", ("unet", "transformer", "unet_image", "transformer_image"))
@pytest.mark.parametrize("objective", ("diffusion", "flow", "mip"))
def test_shipped_options_of_every_objective_pass(policy, objective):
    config = compose_verb("train", ["task=lift", f"policy={policy}", f"policy.objective={objective}"])
    assert check(config)[1].objective == objective


def test_the_options_of_ones_own_policy_pass(tmp_path):
    (tmp_path / "policy").mkdir()
    lines = (SHIPPED / "policy" / "unet.yaml").read_text().replace("name: unet", "name: mine")
    (tmp_path / "policy" / "mine.yaml").write_text(lines.replace("  steps: 100", "  steps: 50"))
    overrides = ["task=lift", "policy=mine", "policy.objective=flow"]
    config = compose_verb("train", overrides, [tmp_path])
    assert (config.policy.chain.steps, check(config)[1].flow.steps) == (50, 50)


def test_a_benchmark_tells_the_chain_from_the_ode(trained, tmp_path):
    output, seen = tmp_path / "timed", tmp_path / "seen.safetensors"
    save_file({"state": np.zeros((4, 2, 3), np.float32)}, seen)
    common = [f"policy={trained}", f"output={output}", f"observations={seen}", "engine=eager", "threads=1", "count=2"]
    assert main(["benchmark", *common, "samplers=[ddpm,block,euler-5]"]) == 0
    found = json.loads((output / "summary.json").read_text())
    assert {one["label"]: one["distribution"] for one in found["samplers"]} == {
        "ddpm": "ancestral",
        "block": "ancestral",
        "euler-5": "flow ODE",
    }


def test_convert_says_what_a_flow_policy_is(trained, tmp_path, capsys):
    assert main(["convert", f"path={trained}", f"out={tmp_path / 'copy'}"]) == 0
    assert "samples by its ancestral chain, 10 of 20 steps, predicts velocity" in capsys.readouterr().out


def test_an_ode_of_a_policy_that_denoises_is_refused_in_one_line(small_policy, tmp_path, capsys):
    small_policy.save(tmp_path / "policy")
    seen = tmp_path / "seen.safetensors"
    save_file({"position": np.zeros((4, 2, 2), np.float32), "object": np.zeros((4, 2, 3), np.float32)}, seen)
    common = [f"policy={tmp_path / 'policy'}", f"output={tmp_path / 'out'}", f"observations={seen}", "engine=eager"]
    assert main(["benchmark", *common, "samplers=[euler]"]) == 2
    error = capsys.readouterr().err.strip()
    assert "'euler' solves the equation of a flow policy" in error and "\n" not in error
