"""scripts/demo.sh: whose times it charges, and the picture that it ends in."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from specpolicy.control.trace import read_counts, read_trace
from specpolicy.errors import SpecpolicyError
from specpolicy.evaluation.video import video_writer

SCRIPTS = Path(__file__).parents[1] / "scripts"


def script(name):
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def times():
    return script("demo_times")


@pytest.fixture
def picture():
    return script("demo_picture")


@pytest.mark.parametrize(
    ("ddpm", "recycled", "own", "why"),
    (
        (0.190, 0.060, True, "that are charged"),
        (0.900, 0.120, False, "too slow"),
        (0.035, 0.011, False, "nearly in time"),
    ),
)
def test_own_times_are_charged_where_they_tell_something(times, ddpm, recycled, own, why, tmp_path):
    """In a process, as the shell asks for it: stdout is the file, stderr is why."""
    rows = [f"{name},{seconds}" for name, seconds in (("ddpm", ddpm), ("recycled-16", recycled)) for _ in range(3)]
    (tmp_path / "chunks.csv").write_text("\n".join(["sampler,seconds", *rows, "ddpm,9.0", "recycled-16,9.0"]) + "\n")
    command = [sys.executable, str(SCRIPTS / "demo_times.py"), str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == str(tmp_path / "chunks.csv" if own else times.RECORDED)
    assert why in run.stderr and f"ddpm {ddpm / 0.05:.1f} and" in run.stderr


def test_the_recorded_times_tell_something(times):
    """Of every sampler that the demonstration plays."""
    path = SCRIPTS.parent / times.RECORDED
    steps = {}
    for sampler in ("ddpm", "recycled", "recycled-16", "ddim-10"):
        assert len(read_trace(path, sampler)) >= 40 and {"calls", "rows"} <= read_counts(path, sampler).keys()
        steps[sampler] = float(np.median(read_trace(path, sampler))) / times.STEP
    assert times.choose(steps["ddpm"], steps["recycled-16"])[0] and steps["recycled"] < steps["ddpm"] / 2


def test_the_seed_shown_is_one_that_tells(picture):
    lengths = {1: 90, 2: 50, 3: 40, 4: 30}
    left, right = {1: False, 2: False, 3: True, 4: False}, {1: True, 2: True, 3: True, 4: False}
    assert picture.choose_seed(left, right, lengths) == 2  # the soonest of 1 and 2
    assert picture.choose_seed({3: True, 4: False}, right, lengths) == 3
    assert picture.choose_seed({4: False}, right, lengths) == 4
    with pytest.raises(SpecpolicyError, match="no seed"):
        picture.choose_seed({9: True}, right, lengths)


def film(path, frames, shade):
    path.parent.mkdir(exist_ok=True)
    with video_writer(path, fps=20.0) as write:
        for _ in range(frames):
            write(np.full((64, 96, 3), shade, np.uint8))


def test_a_picture_of_two_films(picture, tmp_path):
    """The left one is cut a second behind the end of the right one, whose last frame stays."""
    film(tmp_path / "videos" / "slow.mp4", 100, 40)
    film(tmp_path / "videos" / "quick.mp4", 30, 200)
    conditions = [
        {
            "sampler": sampler,
            "chunk_seconds": {"p50": seconds},
            "videos": [{"seed": 7, "success": int(solved), "path": f"videos/{name}.mp4"}],
        }
        for sampler, name, seconds, solved in (("ddpm", "slow", 0.26, False), ("recycled-16", "quick", 0.027, True))
    ]
    (tmp_path / "summary.json").write_text(json.dumps({"conditions": conditions}))
    said = picture.write(tmp_path, tmp_path / "out.gif", ["ddpm", "recycled-16"])
    assert "seed 7; ddpm, 260 ms a chunk: not solved; recycled-16, 27 ms a chunk: solved" in said
    with Image.open(tmp_path / "out.gif") as shown:
        assert shown.size == (192, 48 + picture.CAPTION)
        durations = []
        for number in range(shown.n_frames):  # a GIF keeps like pictures as one that stays
            shown.seek(number)
            durations.append(shown.info["duration"])
        assert sum(durations) == 25 * 100  # (30 + 20) frames, every second one, of 50 ms each
        pixels = np.asarray(shown.convert("L")).astype(int)
    assert abs(pixels[60, 40] - 40) < 12 and abs(pixels[60, 150] - 200) < 12
