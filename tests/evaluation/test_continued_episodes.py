"""Episodes side by side continue committed actions as they do alone, and say what they are."""

import numpy as np
import pytest
import torch

from specpolicy import Committed
from specpolicy.cli import main
from specpolicy.control.clock import ChargedClock
from specpolicy.evaluation.conditions import Condition
from specpolicy.evaluation.planners import PolicyPlanner
from specpolicy.evaluation.player import WARM_UP, Player, Setup
from specpolicy.evaluation.together import Known, Member, draw
from specpolicy.policy import DiffusionPolicy


def history(seed):
    source = np.random.default_rng(seed)
    return {"position": source.normal(size=(2, 2)), "object": source.normal(size=(2, 3))}


def test_rows_of_a_batch_continue_what_is_their_own(small_policy):
    planner, actions = PolicyPlanner(small_policy, "ddim-4"), np.array([[0.5, 2.0], [0.7, 3.0], [0.9, 4.0]])
    given = [None, Committed(actions, 1), Committed(actions[::-1], 2)]
    questions = [(history(row), torch.Generator().manual_seed(row), one) for row, one in enumerate(given)]
    together = draw(planner, questions)
    first = small_policy.first_action
    for row, (one, out) in enumerate(zip(given, together, strict=True)):
        planner.reset(row)
        alone = planner.plan(history(row), one)
        np.testing.assert_allclose(out.actions[0, first:], alone.actions, rtol=0, atol=1e-4)
        count = 0 if one is None else one.count
        np.testing.assert_allclose(
            alone.actions[:count], actions[:0] if one is None else one.actions[:count], atol=1e-4
        )
    asked = []
    member = Member(Known.of(planner), lambda question: (asked.append(question), together[1])[1])
    member.reset(1)
    assert member.continues and member.plan(history(1), given[1]).actions.shape == (7, 2)
    assert asked[0][2] is given[1]


def test_a_condition_says_how_its_chunks_continue():
    condition = Condition("block", "delay", 4, stitching="linear-0.1")
    assert condition.label == "block d4 linear-0.1" and condition.execution.continues


@pytest.mark.parametrize(
    ("way", "words"),
    (
        ("gradient engine=openvino", "engine=openvino computes no gradients: use engine=eager, or stitching=guided"),
        ("trained", "train it with policy.prefix=8"),
        ("linear", "run `specpolicy calibrate`"),
        ("rtc-2", "takes no number"),
    ),
)
def test_a_way_that_the_policy_lacks_is_refused_before_an_episode(
    drift_task, drift_policy, tmp_path, capsys, way, words
):
    arguments = ["evaluate", "task=gym", f"task.id={drift_task['id']}", f"policy={drift_policy}", "samplers=[ddim-2]"]
    output, (name, *more) = tmp_path / "out", way.split()
    arguments += ["track=delay", "track.delays=[2]", f"stitching=[{name}]", *more]
    assert main([*arguments, f"output={output}"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert words in line and not (output / "episodes.csv").exists()


def test_the_warm_up_continues_actions_as_the_episodes_will(drift_task, drift_policy, monkeypatch):
    ways, predict = [], DiffusionPolicy.predict

    def watched(self, *arguments, committed=None, **options):
        ways.append(None if committed is None else committed.way)
        return predict(self, *arguments, committed=committed, **options)

    monkeypatch.setattr(DiffusionPolicy, "predict", watched)
    player = Player(Setup(drift_task, drift_policy, {"ddim-2": {"name": "ddim", "steps": 2}}))
    player.planner(Condition("ddim-2"))
    assert set(ways) == {None}
    ways.clear()
    player.planner(Condition("ddim-2", "delay", 2, stitching="inpaint"))
    player.planner(Condition("ddim-2", "delay", 4, stitching="inpaint"))
    assert ways == [None, *["inpaint"] * WARM_UP]
    player.close()


def test_where_times_are_charged_the_warm_up_continues_as_many_actions(drift_task, drift_policy, monkeypatch):
    counts, predict = [], DiffusionPolicy.predict

    def watched(self, *arguments, committed=None, **options):
        counts.append(0 if committed is None else committed.count)
        return predict(self, *arguments, committed=committed, **options)

    monkeypatch.setattr(DiffusionPolicy, "predict", watched)
    monkeypatch.setattr(ChargedClock, "delay_steps", lambda self, seconds: 3)
    player = Player(Setup(drift_task, drift_policy, {"ddim-2": {"name": "ddim", "steps": 2}}))
    for _ in range(2):
        player.planner(Condition("ddim-2", "charged", stitching="inpaint"))
    assert counts == [0, *[1] * WARM_UP, 0, 3]
    player.close()
