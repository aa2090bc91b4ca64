"""A whole evaluation: the same rows however it is run, resumed, extended; other settings are refused."""

import dataclasses
import json

import pytest

from specpolicy import SpecpolicyError, load_policy
from specpolicy.cluster import Processes
from specpolicy.evaluation import runner, settings
from specpolicy.evaluation.conditions import Condition
from specpolicy.evaluation.player import Setup
from specpolicy.evaluation.runner import Evaluation

DDPM, DDIM = {"name": "ddpm"}, {"name": "ddim", "steps": 4, "eta": 0.0}


@pytest.fixture
def evaluation(drift_task, drift_policy) -> Evaluation:
    setup = Setup(drift_task, drift_policy, {"ddpm": DDPM, "ddim-4": DDIM})
    return Evaluation(setup, paused(setup.samplers), episodes=3, seed=100)


def paused(samplers):
    """A condition for each sampler, in a world that waits."""
    return tuple(map(Condition, samplers))


def changed(evaluation, **changes):
    """The evaluation with changes to it or to its setup."""
    names = {field.name for field in dataclasses.fields(Setup)}
    setup = {name: value for name, value in changes.items() if name in names}
    rest = {name: value for name, value in changes.items() if name not in names}
    if "samplers" in changes:
        rest.setdefault("conditions", paused(changes["samplers"]))
    return dataclasses.replace(evaluation, setup=dataclasses.replace(evaluation.setup, **setup), **rest)


def run(evaluation, output, workers=0, overwrite=False, on_episode=lambda played: None):
    results = settings.claim(evaluation, runner.check(evaluation), output, overwrite)
    runner.play(evaluation, results, output, Processes(workers), on_episode)
    return results


def outcomes(results):
    """The rows without their measured times, in an order of their own."""
    rows = [
        {name: value for name, value in row.items() if "seconds_" not in name and "_share" not in name}
        for row in results.episodes.rows
    ]
    return sorted(rows, key=lambda row: (row["condition"], row["seed"]))


def test_rows_do_not_depend_on_the_number_of_processes(evaluation, tmp_path):
    expected = outcomes(run(evaluation, tmp_path / "here", workers=0))
    assert len(expected) == 6 and len({row["return"] for row in expected}) == 6
    assert outcomes(run(evaluation, tmp_path / "two", workers=2)) == expected


def test_samplers_are_paired_by_seed_and_progress_together(evaluation, tmp_path):
    jobs = runner.schedule(changed(evaluation, videos=1), tmp_path)
    assert [(job.seed, job.condition.label) for job in jobs][:4] == [
        (100, "ddpm"),
        (100, "ddim-4"),
        (101, "ddpm"),
        (101, "ddim-4"),
    ]
    assert [job.video is not None for job in jobs] == [True, True] + 4 * [False]


class Stop(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("after", (1, 4))
def test_an_interrupted_run_goes_on(evaluation, tmp_path, after):
    expected = outcomes(run(evaluation, tmp_path / "whole"))
    played = []

    def stop(episode):
        played.append(episode)
        if len(played) == after:
            raise Stop

    with pytest.raises(Stop):
        run(evaluation, tmp_path / "cut", on_episode=stop)
    with (tmp_path / "cut" / "episodes.csv").open("a") as file:
        file.write("drift,ddpm,10")  # the torn line of a kill while writing
    assert outcomes(run(evaluation, tmp_path / "cut", on_episode=played.append)) == expected
    assert len(played) == 6  # nothing was played twice


def as_numbers(rows):
    """Outcomes whose figures are numbers."""
    return [
        {name: float(value) if "." in value and name not in ("condition", "sampler") else value}
        for row in rows
        for name, value in row.items()
    ]


def rounded(rows):
    """Outcomes whose figures are compared to a thousandth: a batch may change the last digits."""
    return [
        {
            name: pytest.approx(float(value), rel=1e-3)
            if "." in value and name not in ("condition", "sampler")
            else value
        }
        for row in rows
        for name, value in row.items()
    ]


def test_episodes_played_side_by_side_are_those_played_alone(evaluation, tmp_path):
    """Nine of each condition, two at a time, in blocks of eight: the last one is a single episode."""
    speculative = {"ddpm": DDPM, "recycled": {"name": "recycled"}}
    evaluation = changed(evaluation, samplers=speculative, episodes=9)
    alone = outcomes(run(evaluation, tmp_path / "alone"))
    together = changed(evaluation, batch=2)
    found = outcomes(run(together, tmp_path / "together"))
    assert as_numbers(found) == rounded(alone)
    assert outcomes(run(together, tmp_path / "process", workers=1)) == found  # to the bit
    with pytest.raises(SpecpolicyError, match="batch"):
        run(evaluation, tmp_path / "together")


def test_a_block_is_of_one_condition_and_filmed_episodes_are_alone(evaluation, tmp_path):
    many = changed(evaluation, episodes=20, batch=2, videos=1)
    found = runner.blocks(many, tmp_path)
    assert [[job.seed for job in block] for block in found if block[0].condition.sampler == "ddpm"] == [
        [100],
        [*range(101, 108)],
        [*range(108, 116)],
        [*range(116, 120)],
    ]
    for block in found:
        assert len({job.condition for job in block}) == 1
        assert len(block) == 1 or not any(job.video for job in block)


def test_an_interrupted_block_is_played_again_and_gives_the_same_rows(evaluation, tmp_path):
    together = changed(evaluation, batch=3, episodes=5)
    expected = outcomes(run(together, tmp_path / "whole"))
    played = []

    def stop(episode):
        played.append(episode)
        if len(played) == 2:
            raise Stop

    with pytest.raises(Stop):
        run(together, tmp_path / "cut", on_episode=stop)
    assert outcomes(run(together, tmp_path / "cut", on_episode=played.append)) == expected
    assert len(played) == 10  # no row is written twice


def test_what_is_charged_cannot_be_drawn_together(evaluation, tmp_path):
    charged = changed(evaluation, batch=2, conditions=(Condition("ddpm", clock="charged"),))
    with pytest.raises(SpecpolicyError, match="batch=2: chunks drawn together"):
        runner.check(charged)


def test_more_episodes_and_other_samplers_add_to_a_run(evaluation, tmp_path):
    one = {"ddpm": DDPM}
    run(changed(evaluation, episodes=1, samplers=one), tmp_path)
    played = []
    results = run(evaluation, tmp_path, on_episode=played.append)
    assert len(played) == 5 and len(results.episodes.rows) == 6
    assert set(json.loads((tmp_path / "settings.json").read_text())["conditions"]) == {"ddpm", "ddim-4"}
    run(changed(evaluation, samplers=one), tmp_path, on_episode=lambda _: pytest.fail("all was there"))


def test_other_settings_are_refused_and_nothing_is_lost(evaluation, tmp_path, policy_config):
    short = changed(evaluation, episodes=1)
    expected = outcomes(run(short, tmp_path / "out"))
    policy = load_policy(evaluation.setup.policy)
    policy.denoiser.final_conv[1].bias.data += 1e-3
    retrained = str(policy.save(tmp_path / "retrained"))
    task = {**evaluation.setup.task, "kwargs": {"radius": 2.0}}
    for change, named in (
        ({"seed": 7}, "seed=100, not 7"),
        ({"max_seconds": 1.0}, "max_seconds"),
        ({"task": task}, "task"),
        ({"samplers": {"ddpm": DDPM, "ddim-4": {**DDIM, "eta": 1.0}}}, "ddim-4="),
        ({"policy": retrained}, "another policy"),
    ):
        with pytest.raises(SpecpolicyError, match=named) as caught:
            run(changed(short, **change), tmp_path / "out")
        assert "overwrite=true" in str(caught.value)
    copied = str(load_policy(evaluation.setup.policy).save(tmp_path / "copy"))  # the same policy elsewhere
    assert outcomes(run(changed(short, policy=copied), tmp_path / "out")) == expected
    (tmp_path / "out" / "notes.txt").write_text("mine")
    assert outcomes(run(changed(short, seed=7), tmp_path / "out", overwrite=True)) != expected
    assert (tmp_path / "out" / "notes.txt").exists()


@pytest.mark.parametrize(
    "change, message",
    (
        ({"episodes": 0}, "episodes"),
        ({"batch": 0}, "batch=0"),
        ({"samplers": {}}, "samplers is empty"),
        ({"samplers": {"x": {"name": "dpm"}}}, "dpm"),
        ({"samplers": {"x": {"name": "ddim", "step": 3}}}, "did you mean 'steps'"),
        ({"samplers": {"expert": {"name": "expert"}}}, "no scripted expert"),
        ({"device": "cuda:77"}, "device=cuda:77 cannot be used here"),
        ({"policy": "nowhere"}, "no policy at nowhere"),
    ),
)
def test_bad_settings_are_found_before_anything_is_written(evaluation, tmp_path, change, message):
    with pytest.raises(SpecpolicyError, match=message):
        run(changed(evaluation, **change), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_results_of_an_unknown_origin_are_not_overwritten(evaluation, tmp_path):
    (tmp_path / "episodes.csv").write_text("precious\n")
    for overwrite in (False, True):
        with pytest.raises(SpecpolicyError, match=r"without settings\.json"):
            run(evaluation, tmp_path, overwrite=overwrite)
    assert (tmp_path / "episodes.csv").read_text() == "precious\n"


def test_a_filmed_episode_is_the_unfilmed_one(evaluation, tmp_path):
    import imageio.v3

    expected = outcomes(run(evaluation, tmp_path / "without"))
    filmed = run(changed(evaluation, videos=1), tmp_path / "with")
    assert outcomes(filmed) == expected
    videos = sorted(path.name for path in (tmp_path / "with" / "videos").iterdir())
    assert videos == ["ddim-4-100.mp4", "ddpm-100.mp4"]
    lengths = {row["sampler"]: int(row["length"]) for row in filmed.episodes.rows if row["seed"] == "100"}
    for label, length in lengths.items():
        frames = imageio.v3.imread(tmp_path / "with" / "videos" / f"{label}-100.mp4")
        assert frames.shape == (length + 1, 32, 32, 3)


def test_without_a_renderer_the_episodes_are_played_all_the_same(evaluation, tmp_path):
    blind = {**evaluation.setup.task, "kwargs": {**evaluation.setup.task["kwargs"], "blind": True}}
    warnings = []
    results = run(
        changed(evaluation, task=blind, videos=2), tmp_path, on_episode=lambda played: warnings.append(played.no_video)
    )
    assert outcomes(results) == outcomes(run(evaluation, tmp_path / "seeing"))
    assert warnings.count("no OpenGL library works here") == 4 and warnings.count(None) == 2
    assert not (tmp_path / "videos").exists()


def test_a_run_of_a_version_that_knew_fewer_options_goes_on(evaluation, tmp_path):
    """An option at its default changes nothing, whether it is named or not."""
    run(changed(evaluation, episodes=1, samplers={"ddpm": {"name": "ddpm"}}), tmp_path)
    now = changed(evaluation, episodes=1, samplers={"ddpm": {"name": "ddpm", "steps": None}})
    run(now, tmp_path, on_episode=lambda _: pytest.fail("all was there"))
    with pytest.raises(SpecpolicyError, match="ddpm="):
        run(changed(now, samplers={"ddpm": {"name": "ddpm", "steps": 5}}), tmp_path)
