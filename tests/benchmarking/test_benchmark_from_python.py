"""specpolicy.benchmark: the verb as a function, for policies in memory."""

import specpolicy
from specpolicy.policy.histories import FILE
from specpolicy.samplers import Block


def test_a_policy_in_memory_costs_the_calls_of_its_checkpoint(checkpoint, tmp_path):
    policy, options = specpolicy.load_policy(checkpoint), {"engine": "eager", "quiet": True}
    samplers = ["ddpm", Block(window=4)]
    outcomes = [
        specpolicy.benchmark(one, samplers, 2, observations=checkpoint / FILE, **options)
        for one in (policy, checkpoint)
    ]
    calls = [[entry["calls"] for entry in outcome.summary["samplers"]] for outcome in outcomes]
    assert calls[0] == calls[1] and calls[0][0]["mean"] == 20 > calls[0][1]["mean"]
    assert len(outcomes[0].chunks) == 4
    assert outcomes[0].report(tmp_path / "out") == tmp_path / "out" / "table.md"


def test_a_task_may_be_a_mapping(checkpoint):
    """Nobody needs it where observations are recorded already."""
    task = {"name": "drift", "id": "drift_env:Drift-v0"}
    found = specpolicy.benchmark(checkpoint, ["ddpm"], 1, task=task, engine="eager", quiet=True)
    assert found.summary["config"]["task"]["name"] == "drift"
