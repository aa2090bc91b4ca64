"""`--multirun`: jobs with outputs of their own, by the basic launcher and by joblib's; mistakes, resumption."""

import csv
import json
import os
import sys
import types
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from specpolicy import load_policy
from specpolicy.cli import main
from specpolicy.cli.configuration import save_config
from specpolicy.errors import SpecpolicyError
from specpolicy.policy import DiffusionPolicy

TINY = [
    *("task=gym", "task.id=Pendulum-v1", "policy.network.down_dims=[16,32]", "policy.horizon=8"),
    *("policy.n_action_steps=4", "policy.chain.train_steps=20", "policy.chain.steps=20", "steps=4", "batch_size=8"),
    *("log_every=1", "save_every=2", "threads=1"),
]
JOBLIB = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current directory, empty."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield tmp_path / "here"
    if "joblib" in sys.modules:  # its processes would stay, and work on in this directory
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown(wait=True)


@pytest.fixture
def data(tmp_path, write_demonstrations):
    return write_demonstrations(tmp_path / "pendulum.hdf5")


@pytest.fixture
def received(monkeypatch):
    """What `collect` received, job by job; it saves its settings as all verbs do, and fails for a seed above 100."""
    seen = []

    def run(config):
        if config.seed > 100:
            raise SpecpolicyError(f"the seed {config.seed} is bad")
        assert Path.cwd().name == "here"
        seen.append((config, list(sys.argv)))
        save_config(config, Path(config.output).with_suffix(""), "collect")

    module = types.ModuleType("specpolicy.cli.collect")
    module.run = run
    monkeypatch.setitem(sys.modules, "specpolicy.cli.collect", module)
    return seen


def weights(directory):
    return load_policy(directory).denoiser.state_dict()


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_each_combination_is_a_job_with_an_output_of_its_own(here, received):
    assert main(["collect", "-m", "task=lift,can", "seed=1,2"]) == 0
    (sweep,) = here.glob("multirun/*/*")  # Hydra's dated directory
    outputs = [
        f"{sweep.relative_to(here)}/{job}/{task}.hdf5" for job, task in enumerate(("lift", "lift", "can", "can"))
    ]
    assert [config.output for config, _ in received] == outputs
    assert [config.seed for config, _ in received] == [1, 2, 1, 2]
    # What results say they were made by is the job alone, not the sweep.
    assert received[2][1] == ["specpolicy", "collect", "task=can", "seed=1", f"output={outputs[2]}"]
    assert OmegaConf.load(sweep / "2" / ".hydra" / "overrides.yaml") == ["task=can", "seed=1"]
    assert OmegaConf.load(sweep / "2" / ".hydra" / "config.yaml").task.name == "can"
    kept = OmegaConf.load(sweep / "2" / ".hydra" / "hydra.yaml").hydra
    assert (kept.job.num, kept.mode) == (2, "MULTIRUN") and Path(kept.runtime.output_dir) == sweep / "2"
    assert (sweep / "multirun.yaml").exists()


def test_directories_of_jobs_are_named_as_hydras_users_name_them(here, received):
    named = ["hydra.sweep.dir=runs", "hydra.sweep.subdir=${task.name}-${seed}"]
    assert main(["collect", "--multirun", "task=lift", "seed=range(1,3)", *named]) == 0
    assert [config.output for config, _ in received] == ["runs/lift-1/lift.hdf5", "runs/lift-2/lift.hdf5"]
    received.clear()
    assert main(["collect", "-m", "task=lift", "seed=1,2", "output='x/${seed}-${hydra:job.num}.hdf5'", *named]) == 0
    assert [config.output for config, _ in received] == ["x/1-0.hdf5", "x/2-1.hdf5"]


def test_names_that_look_like_numbers_samplers_with_steps_and_values_of_lists(here, monkeypatch):
    seen = []
    module = types.ModuleType("specpolicy.cli.rollout")
    module.run = seen.append
    monkeypatch.setitem(sys.modules, "specpolicy.cli.rollout", module)
    for name in ("1_000", "0.50"):
        (here / name).mkdir()
    arguments = ["policy=1_000,0.50", "sampler=ddim-4,asd", "video_size=[2,3],[4,5]"]
    assert main(["rollout", "-m", "task=lift", *arguments]) == 0
    assert [one.policy for one in seen] == ["1_000"] * 4 + ["0.50"] * 4
    assert {(one.sampler.name, one.sampler.steps) for one in seen} == {("ddim", 4), ("asd", None)}
    assert [list(one.video_size) for one in seen[:2]] == [[2, 3], [4, 5]]


@pytest.mark.parametrize(
    ("verb", "arguments", "words"),
    [
        ("collect", ["task=lift,cann"], "unknown task 'cann'; did you mean 'can'?"),
        ("collect", ["task=lift", "seed=1,-1"], "seed=-1: expected at least 0"),
        ("collect", ["task=lift", "episodes=1,few"], "episodes=few: expected a whole number"),
        ("collect", ["task=lift", "episodes=1,0"], "episodes=0 is out of range"),
        ("collect", ["seed=1,2"], "task is required: task=<one of can"),
        ("collect", ["task=lift,gym"], "task.id is required"),
        ("collect", ["task=lift", "sed=1,2"], "unknown key 'sed'; did you mean 'seed'"),
        ("collect", ["task=lift", "hydra/launcher=jobli"], "unknown hydra/launcher 'jobli'; did you mean 'joblib'"),
        ("collect", ["task=lift", "hydra.swep.dir=x"], "unknown key 'hydra.swep.dir'; did you mean 'hydra.sweep'"),
        ("collect", ["task=lift", "seed=1,2", "output=a.hdf5"], "jobs 0 and 1 would share output=a.hdf5"),
        ("collect", ["task=lift", "seed=1,1", "output=a.hdf5"], "jobs 0 and 1 would share output=a.hdf5"),
        ("collect", ["task=lift", "seed=1,2", "hydra.sweep.subdir=a"], "jobs 0 and 1 would share output="),
        ("collect", ["task=lift", "seed=1,2", "hydra.job.chdir=true"], "the working directory never changes"),
        (
            "evaluate",
            ["task=lift", "policy=.", "samplers=[ddim],[dimm]"],
            "unknown sampler 'dimm'; did you mean 'ddim'",
        ),
        ("rollout", ["task=lift", "policy=.", "sampler=ddim-4,threshold-4"], "unknown key 'sampler.steps'"),
        ("benchmark", ["policy=.,nowhere"], "policy=nowhere: no such file or directory"),
        ("train", ["task=lift", "data=.", "policy.horizon=16,0"], "horizon is 0"),
        ("serve", ["policy=a,b"], "runs until it is stopped"),
    ],
)
def test_a_mistake_in_any_job_is_one_line_before_the_first_begins(here, capsys, verb, arguments, words):
    assert main([verb, "-m", *arguments]) == 2
    printed = capsys.readouterr()
    assert words in printed.err and printed.err.count("\n") == 1 and printed.out == ""
    assert not list(here.iterdir())


def test_a_job_that_fails_says_which_and_the_others_results_stay(here, received, capsys):
    assert main(["collect", "-m", "task=lift", "seed=1,101,2", "hydra.sweep.dir=runs"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "specpolicy collect: job 1 (seed=101): the seed 101 is bad"
    assert lines[-1].startswith("specpolicy collect: job 1 (seed=101) failed; what the jobs wrote is kept.")
    assert lines[-1].endswith("the same command with hydra.sweep.dir=runs")
    assert [config.seed for config, _ in received] == [1, 2]
    assert (here / "runs/2/lift/config.yaml").exists() and not (here / "runs/1/lift").exists()


def test_a_defect_of_ours_keeps_its_traceback(here, received, capsys, monkeypatch):
    monkeypatch.setattr(sys.modules["specpolicy.cli.collect"], "run", lambda config: 1 / 0)
    assert main(["collect", "-m", "task=lift", "seed=1,2"]) != 0
    printed = capsys.readouterr().err
    assert printed.count("ZeroDivisionError") == 2 and "job 1 (seed=2): failed" in printed


def test_joblib_trains_in_two_processes_what_one_run_trains(here, data, capfd):
    """Twice with the same processes, which take long to start."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    assert main(["train", "-m", *TINY, f"data={data}", "seed=1,2", *JOBLIB, "hydra.sweep.dir=runs"]) == 0
    assert main(["train", *TINY, f"data={data}", "seed=2", "output=alone"]) == 0
    alone, jobs = weights(here / "alone"), [weights(here / "runs" / job) for job in "01"]
    assert same(jobs[1], alone) and not same(jobs[0], alone)
    kept = OmegaConf.load(here / "runs/1/.hydra/hydra.yaml").hydra
    assert kept.job.id == "train_1"  # as joblib's launcher names them
    config = json.loads((here / "runs/1/config.json").read_text())
    assert config["command"].endswith("seed=2 output=runs/1")
    goes_on(here, data, capfd, JOBLIB)


def test_the_same_sweep_goes_on_where_its_jobs_stopped(here, data, capfd):
    goes_on(here, data, capfd, [])


def goes_on(here, data, capfd, launcher):
    """Jobs that are done stay as they are, one that failed is done, and other settings are refused."""
    broken = here.parent / "broken.hdf5"
    broken.write_bytes(data.read_bytes()[:100])
    sweep = ["train", "-m", *TINY, f"data={broken},{data}", "hydra.sweep.dir=stopped", *launcher]
    capfd.readouterr()
    assert main(sweep) == 2
    printed = capfd.readouterr().err
    assert "job 0 (" in printed and "broken.hdf5" in printed and "Traceback" not in printed
    first = os.stat(here / "stopped/1/training.pt").st_mtime_ns
    before = weights(here / "stopped/1")
    broken.write_bytes(data.read_bytes())
    assert main(sweep) == 0
    done = here / "stopped/1"
    assert os.stat(done / "training.pt").st_mtime_ns == first and same(before, weights(done))
    assert same(before, weights(here / "stopped/0"))  # of the same data, settings and seed
    capfd.readouterr()
    # A job of other settings in the same place is refused by its verb, as a single run is.
    assert main([*sweep, "learning_rate=1e-5"]) == 2
    assert "learning_rate" in capfd.readouterr().err and same(before, weights(here / "stopped/0"))


def test_jobs_in_processes_of_joblib_start_processes_of_their_own(here, tmp_path, policy_config, monkeypatch):
    """Those would be started joblib's way, of which they know nothing."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "evaluation"))  # where drift_env.py lies
    policy = DiffusionPolicy.from_config({**policy_config, "chain": {"train_steps": 12, "steps": 12}})
    policy.save(tmp_path / "policy")
    task = ["task=gym", "task.name=drift", "task.id=drift_env:Drift-v0", f"policy={tmp_path}/policy"]
    few = ["samplers=[ddim-4]", "episodes=2", "workers=1", "videos=0", "seed=1,5", "engine=eager"]
    assert main(["evaluate", "-m", *task, *few, *JOBLIB, "hydra.sweep.dir=runs"]) == 0
    for job, seeds in enumerate((["1", "2"], ["5", "6"])):
        with (here / f"runs/{job}/episodes.csv").open(newline="") as file:
            assert sorted(row["seed"] for row in csv.DictReader(file)) == seeds
