"""specpolicy.evaluate: the verb as a function, for policies in memory."""

import json

import pytest

import specpolicy
from specpolicy import SpecpolicyError
from specpolicy.samplers import DDIM, Recycled

CHEAP = {"workers": 0, "quiet": True, "max_seconds": 2, "engine": "eager"}


def rows(outcome):
    """Its episodes as plain rows, without the columns that are measured times."""
    table = outcome.episodes
    table = table if isinstance(table, list) else table.to_dict("records")
    timed = ("seconds", "share")
    return [{name: value for name, value in row.items() if not any(word in name for word in timed)} for row in table]


def test_a_policy_in_memory_plays_as_its_checkpoint_does(drift_policy, drift_task, tmp_path):
    samplers = ["ddpm", DDIM(steps=4), {"name": "ddim", "steps": 2, "label": "two"}]
    policy = specpolicy.load_policy(drift_policy)
    outcomes = [specpolicy.evaluate(one, drift_task, samplers, 3, **CHEAP) for one in (policy, drift_policy)]
    assert rows(outcomes[0]) == rows(outcomes[1]) and len(rows(outcomes[0])) == 9
    summary = outcomes[0].summary
    assert [condition["label"] for condition in summary["conditions"]] == ["ddpm", "ddim-4", "two"] and summary[
        "episodes"
    ] == 3
    assert summary["policy"]["path"] == "(in memory)" and summary["command"].startswith("specpolicy.evaluate(")
    report = outcomes[0].report(tmp_path / "out")
    assert report == tmp_path / "out" / "report.html" and "ddim-4" in report.read_text()
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == summary
    with pytest.raises(SpecpolicyError, match="is there already"):
        outcomes[0].report(tmp_path / "out")


@pytest.mark.usefixtures("without_plots")
def test_options_are_those_of_the_verb_and_results_go_on(drift_policy, drift_task, tmp_path, capsys):
    policy = specpolicy.load_policy(drift_policy)
    options = {"output": tmp_path / "out", "track": "delay", "track.delays": [0, 2], **CHEAP, "engine": "auto"}
    first = specpolicy.evaluate(policy, drift_task, ["ddim-4"], 1, **options)
    assert [condition["delay"] for condition in first.summary["conditions"]] == [0, 2] and capsys.readouterr().out == ""
    more = specpolicy.evaluate(policy, drift_task, ["ddim-4"], 2, **options)
    assert [row for row in rows(more) if row in rows(first)] == rows(first) and len(rows(more)) == 4


@pytest.mark.usefixtures("without_plots")
def test_processes_get_the_policy_that_is_in_memory(drift_policy, drift_task):
    policy = specpolicy.load_policy(drift_policy)
    alone = specpolicy.evaluate(policy, drift_task, [Recycled(calibrated=False)], 2, **CHEAP)
    spread = specpolicy.evaluate(policy, drift_task, [Recycled(calibrated=False)], 2, **{**CHEAP, "workers": 1})
    assert sorted(map(str, rows(alone))) == sorted(map(str, rows(spread)))


@pytest.mark.parametrize(
    "options, words",
    (
        ({"samplers": ["dppm"]}, "unknown sampler 'dppm'|no option"),
        ({"samplers": [3.5]}, "give names, samplers or mappings"),
        ({"epsiodes": 3}, "did you mean"),
        ({"seed": -1}, "seed"),
        ({"track": "pasued"}, "did you mean 'paused'"),
    ),
)
def test_what_the_command_line_refuses_is_refused_in_its_words(drift_policy, drift_task, options, words):
    with pytest.raises(SpecpolicyError, match=words):
        specpolicy.evaluate(drift_policy, drift_task, **{**CHEAP, **options})


def test_a_task_is_known_by_its_name(drift_policy):
    with pytest.raises(SpecpolicyError, match="the policy observes 'position', which specpolicy/Lift-v0 does not have"):
        specpolicy.evaluate(drift_policy, "lift", ["ddpm"], 1, **CHEAP)
    with pytest.raises(SpecpolicyError, match="did you mean 'lift'"):
        specpolicy.evaluate(drift_policy, "lfit", ["ddpm"], 1, **CHEAP)
