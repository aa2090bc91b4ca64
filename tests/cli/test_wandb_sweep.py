"""examples/wandb_sweep.yaml: W&B's agent makes commands of it that train understands, and that log its metric."""

import itertools
from pathlib import Path

import fake_wandb
import pytest
import yaml

from specpolicy import SpecpolicyError, load_policy
from specpolicy.cli import main
from specpolicy.cli.configuration import compose_verb

SWEEP = Path(__file__).parents[2] / "examples" / "wandb_sweep.yaml"
TINY = [
    *("task=gym", "task.id=Pendulum-v1", "task.name=pendulum", "policy.horizon=8", "policy.n_action_steps=4"),
    *("policy.chain.train_steps=20", "policy.chain.steps=20", "steps=2", "log_every=1", "validate_every=1"),
    *("threads=1", "data_hz=20", "any_rate=true", "batch_size=8", "policy.network.down_dims=[16,32]"),
]


@pytest.fixture(autouse=True)
def run_id(monkeypatch):
    """What the agent sets for each run."""
    monkeypatch.setenv("WANDB_RUN_ID", "abc123")


def sweep():
    return yaml.safe_load(SWEEP.read_text())


def trials(parameters):
    """Combinations of all values, of a range those at its ends."""
    values = [one.get("values") or [one["min"], one["max"]] for one in parameters.values()]
    return [dict(zip(parameters, chosen, strict=True)) for chosen in itertools.product(*values)]


def command(chosen):
    """What the agent runs for a trial."""
    utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    macros = utils.create_sweep_command_args({"args": {key: {"value": value} for key, value in chosen.items()}})
    macros |= {"env": ["/usr/bin/env"], "program": [sweep()["program"]]}
    found = []
    for part in utils.create_sweep_command(sweep()["command"]):
        found += macros[part[2:-1]] if part.startswith("${") and part.endswith("}") else [part]
    return found


def test_every_trial_is_a_valid_configuration():
    found = trials(sweep()["parameters"])
    assert len(found) == 2 * 3 * 2 * 2
    for chosen in found:
        env, program, verb, *settings = command(chosen)
        assert (env, program, verb) == ("/usr/bin/env", "specpolicy", "train")
        config = compose_verb(verb, settings)
        assert config.output == "outputs/sweep/abc123" and config.logger.name == "wandb"
        assert config.learning_rate == chosen["learning_rate"] and config.batch_size == chosen["batch_size"]
        assert list(config.policy.network.down_dims) == chosen["policy.network.down_dims"]


def test_a_misspelt_parameter_is_refused():
    *_, chosen = trials(sweep()["parameters"])
    _, _, verb, *settings = command({**chosen, "learning_rat": 1e-3})
    with pytest.raises(SpecpolicyError, match="learning_rate"):
        compose_verb(verb, settings)


def test_a_trial_logs_what_is_swept_for(tmp_path, monkeypatch, write_demonstrations):
    runs, server = [], fake_wandb.Server().install(monkeypatch)
    monkeypatch.setattr("wandb.init", lambda **options: runs.append(server.init(**options)) or runs[-1])
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staged"))
    monkeypatch.chdir(tmp_path)
    *_, chosen = trials(sweep()["parameters"])
    settings = [part for part in command(chosen)[3:] if not part.startswith(("task=", "batch_size=", "policy."))]
    data = write_demonstrations(tmp_path / "pendulum.hdf5")
    assert main(["train", *settings, *TINY, f"data={data}"]) == 0
    (run,) = runs
    assert run.id == "abc123" and sweep()["metric"]["name"] in {key for row in run.rows for key in row}
    assert load_policy("outputs/sweep/abc123").horizon == 8
    assert ("specpolicy", "pendulum-unet") in server.versions
