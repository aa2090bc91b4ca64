"""`specpolicy train` on images: what it reads, in one process and in several, and one line for what does not fit."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "training"))
from toy_images import SIDE, write

from specpolicy import load_policy
from specpolicy.cli import main

SEES = ["policy=unet_image", "policy.vision.kind=small", "policy.vision.crop=[28,28]"]
SMALL = ["policy.network.down_dims=[16,32]"]
TINY = [
    "train",
    "task=push_t",
    "task.proprioception=[still]",
    "policy.horizon=4",
    "policy.n_action_steps=2",
    "data_hz=10",
    "batch_size=8",
    "steps=4",
    "log_every=1",
    "save_every=2",
    "validate_every=2",
    "threads=1",
]


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory):
    return write(tmp_path_factory.mktemp("toy") / "toy.hdf5", episodes=12)


def train(data, output, *more, policy=(*SEES, *SMALL)):
    return main([*TINY, *policy, f"data={data}", f"output={output}", *more])


def losses(output):
    with open(output / "metrics.csv", newline="") as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file)]


def test_it_sees_all_images_of_the_data_and_says_which_cameras_it_needs(demonstrations, tmp_path, capsys):
    assert train(demonstrations, tmp_path / "run", "workers=1", "accumulate=2") == 0, capsys.readouterr()
    policy = load_policy(tmp_path / "run")
    assert policy.config.observation == {"still": 1, "top_image": (3, SIDE, SIDE)}
    assert policy.config.task["cameras"] == ["top"] and policy.config.task["camera_size"] == [SIDE, SIDE]
    before = losses(tmp_path / "run")
    assert train(demonstrations, tmp_path / "run", "accumulate=2") == 0  # the number of readers decides nothing
    assert losses(tmp_path / "run") == before
    assert train(demonstrations, tmp_path / "run") == 2 and "accumulate" in capsys.readouterr().err


def test_images_are_named_like_other_observations(demonstrations, tmp_path):
    keys = "task.observation_keys=[top_image,still]"
    policy = ["policy=transformer_image", *SEES[1:], "policy.network.n_layer=1", "policy.network.n_emb=32"]
    assert train(demonstrations, tmp_path / "run", keys, policy=policy) == 0
    assert set(load_policy(tmp_path / "run").config.observation) == {"top_image", "still"}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["task.cameras=[side]"], "has no images 'side_image', it has top_image"),
        (["task.cameras=[top]"], "have 32 x 32 pixels: set task.camera_size=[32,32]"),
        (["policy.vision.crop=[40,40]"], "32 x 32 pixels are smaller than the crop (40, 40)"),
        (["task.proprioception=[agent_pos]"], "agent_pos"),
        (["colour_jitter=1.5"], "colour_jitter must be at least 0 and below 1"),
        (["accumulate=0"], "accumulate must be at least 1"),
        (["workers=-1"], "workers"),
    ],
)
def test_what_does_not_fit_is_one_line(demonstrations, tmp_path, capsys, more, words):
    assert train(demonstrations, tmp_path / "run", *more) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and words in lines[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("task.observation_keys=[still,top_image]", "'top_image' is an image, and policy=unet sees none"),
        ("task.cameras=[top]", "policy=unet sees no images, and task.cameras=['top'] gives some"),
    ],
)
def test_images_are_not_left_out_in_silence(demonstrations, tmp_path, capsys, more, words):
    assert train(demonstrations, tmp_path / "run", more, policy=SMALL) == 2
    assert words in (line := capsys.readouterr().err) and line.count("\n") == 1


def test_data_without_images_are_refused(tmp_path, capsys, write_demonstrations):
    data = write_demonstrations(tmp_path / "pendulum.hdf5")
    assert train(data, tmp_path / "run") == 2
    assert "policy=unet_image sees images, and" in (line := capsys.readouterr().err) and line.count("\n") == 1


def several(data, output, *more, policy=(*SEES, *SMALL), processes=2):
    """A program that trains as torchrun does, and its environment."""
    program = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = ["-m", "specpolicy", *TINY, *policy, f"data={data}", f"output={output}", *more]
    return {"args": [*program, *arguments], "env": environment}


def finished(program):
    return subprocess.run(**program, capture_output=True, text=True, timeout=300)


def test_two_processes_follow_the_curve_of_one(demonstrations, tmp_path):
    """The same global batch; killed between, and only the first process writes and speaks."""
    long = ["steps=50", "save_every=5", "validate_every=25"]
    assert train(demonstrations, tmp_path / "one", *long) == 0
    program = several(demonstrations, tmp_path / "two", *long)
    with subprocess.Popen(**program, start_new_session=True, stdout=subprocess.DEVNULL) as killed:
        while killed.poll() is None and not (tmp_path / "two" / "training.pt").exists():
            time.sleep(0.01)
        os.killpg(killed.pid, signal.SIGKILL)
    assert torch.load(tmp_path / "two" / "training.pt", weights_only=True)["step"] < 50
    found = finished(program)
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("windows,") == found.stdout.count("saved ") == 1
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == 50 and two == pytest.approx(one, abs=1e-5)
    assert train(demonstrations, tmp_path / "other", *long, "seed=1") == 0
    assert losses(tmp_path / "other") != pytest.approx(one, abs=1e-2)
    state = torch.load(tmp_path / "two" / "training.pt", weights_only=True)
    assert state["step"] == 50
    # Resumed by one process, as there is nothing left to do: it is the same run.
    assert train(demonstrations, tmp_path / "two", *long) == 0 and losses(tmp_path / "two") == two


def test_processes_share_out_the_passes_of_any_policy(demonstrations, tmp_path):
    """Vectors alone, a transformer, several passes a step."""
    more = ["accumulate=2", "task.observation_keys=[still]"]
    policy = [f"policy.network.{option}" for option in ("n_layer=1", "n_emb=32", "p_drop_attn=0")] + [
        "policy=transformer"
    ]
    assert train(demonstrations, tmp_path / "one", *more, policy=policy) == 0
    found = finished(several(demonstrations, tmp_path / "two", *more, policy=policy))
    assert found.returncode == 0, found.stderr
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)


def test_several_processes_say_one_line(demonstrations, tmp_path, monkeypatch, capsys):
    found = finished(several(demonstrations, tmp_path / "run", "batch_size=9"))
    assert found.returncode != 0 and not (tmp_path / "run").exists()
    lines = [line for line in found.stderr.splitlines() if line.startswith("specpolicy train:")]
    assert lines == ["specpolicy train: batch_size=9 is no multiple of the 2 processes that share it out"]
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert train(demonstrations, tmp_path / "run") == 2
    assert "start several processes by torchrun" in capsys.readouterr().err
