"""LeRobot's policy type `specpolicy`, on a stand-in of its base classes. scripts/check_lerobot_robot.py runs it in
LeRobot's own rollout and compares its chunks with LeRobot's."""

import importlib
import json
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from dit_files import ACTIONS, CAMERA, OBS, STATE, TOKENS, write_whole
from torch import nn

from specpolicy import SpecpolicyError, load_policy
from specpolicy.policy import DiffusionPolicy

PLUGIN = "specpolicy.integrations.lerobot_plugin"


@dataclass
class Config:
    device: str | None = None

    def __post_init__(self):
        self.device = self.device or "cpu"

    @classmethod
    def register_subclass(cls, name):
        return lambda kind: kind


class Policy(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config


class Tokeniser:
    """The step that makes tokens of a text."""


class Pipeline:
    """Steps as LeRobot saves them in a directory, by their registered names."""

    def __init__(self, steps, name, **converters):
        self.steps = steps

    @classmethod
    def from_pretrained(cls, directory, config_filename):
        names = [step["registry_name"] for step in json.loads((Path(directory) / config_filename).read_text())["steps"]]
        return cls([Tokeniser() if name == "tokenizer_processor" else name for name in names], "saved")


@pytest.fixture
def plugin(monkeypatch):
    """The plug-in's modules, imported anew over the stand-in."""
    processor = {name: lambda **options: None for name in ("AddBatchDimensionProcessorStep", "DeviceProcessorStep")}
    content = {
        "lerobot": {},
        "lerobot.configs": {},
        "lerobot.configs.policies": {"PreTrainedConfig": Config},
        "lerobot.configs.types": {
            "FeatureType": SimpleNamespace(STATE="STATE", VISUAL="VISUAL", ENV="ENV", ACTION="ACTION"),
            "PolicyFeature": lambda kind, shape: (kind, shape),
        },
        "lerobot.policies": {},
        "lerobot.policies.pretrained": {"PreTrainedPolicy": Policy},
        "lerobot.processor": {
            **processor,
            "RenameObservationsProcessorStep": lambda **options: None,
            "TokenizerProcessorStep": Tokeniser,
            "PolicyProcessorPipeline": Pipeline,
        },
        "lerobot.processor.converters": {
            "policy_action_to_transition": None,
            "transition_to_policy_action": None,
        },
    }
    for name, names in content.items():
        module = types.ModuleType(name)
        module.__dict__.update(names)
        monkeypatch.setitem(sys.modules, name, module)
    for name in [name for name in sys.modules if name.startswith(PLUGIN)]:
        monkeypatch.delitem(sys.modules, name)
    yield importlib.import_module(f"{PLUGIN}.modeling_specpolicy")
    for name in [name for name in sys.modules if name.startswith(PLUGIN)]:
        del sys.modules[name]  # it stands on the stand-in


@pytest.fixture
def make(plugin, policy_config, tmp_path):
    """Makes a policy of the type: of a small policy that is changed by `changes`, with `options`."""

    def made(changes=None, **options):
        torch.manual_seed(0)
        path = DiffusionPolicy.from_config({**policy_config, **(changes or {})}).save(tmp_path / "policy")
        options = {"sampler": "ddim-3", "engine": "eager", **options}
        return plugin.SpecpolicyPolicy(plugin.SpecpolicyConfig(source=str(path), **options))

    return made


def batch(step, names=("position", "object"), rows=2):
    """A frame of each key for some rows, other ones at every step."""
    source = torch.Generator().manual_seed(step)
    return {name: torch.randn(rows, size, generator=source) for name, size in zip(names, (2, 3), strict=True)}


def test_actions_are_those_of_our_policy_with_the_history_of_each_row(make):
    policy = make(seed=5)
    found = torch.stack([policy.select_action(batch(step)) for step in range(6)], dim=1)  # four of one chunk, two more
    assert found.shape == (2, 6, 2) and policy.last_stats.calls.tolist() == [3, 3]
    generator, plain = torch.Generator().manual_seed(5), policy.policy
    for first, frames in ((0, (0, 0)), (4, (3, 4))):
        seen = [batch(step) for step in frames]
        history = {key: torch.stack([frame[key] for frame in seen], dim=1) for key in seen[0]}
        drawn = plain.predict(history, "ddim-3", generator).actions[:, plain.first_action :]
        torch.testing.assert_close(found[:, first : first + 4], drawn[:, : min(4, 6 - first)])


def test_an_episode_begins_anew_and_a_task_may_drop_its_actions(make):
    policy = make(execute_steps=6)
    policy.select_action(batch(0))
    assert len(policy._action_queue) == 5  # LeRobot clears what has this name when the task changes
    policy.reset()
    assert not policy._action_queue and not policy._frames


def test_features_are_told_in_lerobots_names(make):
    names = {"position": "observation.state", "object": "observation.environment_state"}
    policy = make(observation=names)
    assert policy.config.input_features == {
        "observation.state": ("STATE", (2,)),
        "observation.environment_state": ("ENV", (3,)),
    }
    assert policy.config.output_features == {"action": ("ACTION", (2,))} and policy.config.n_obs_steps == 2
    assert policy.select_action(batch(0, tuple(names.values()))).shape == (2, 2)
    with pytest.raises(SpecpolicyError, match=r"observes 'observation.state', .* --policy.observation='{...}'"):
        policy.select_action(batch(0))


def test_what_is_executed_meanwhile_is_told(make, monkeypatch):
    policy, told = make({"n_obs_steps": 1}), []
    draw = policy._drawer

    def drawer(history, generator, committed):
        told.append(committed)
        return draw(history, generator, committed=committed)

    policy._drawer = drawer
    left = torch.tensor([[0.1, 0.2], [0.0, 0.0], [0.3, 0.4], [0.0, 0.0], [0.0, 0.0]])  # filled up with zeros
    assert policy.supports_rtc()
    chunk = policy.predict_action_chunk(batch(0, rows=1), inference_delay=2, prev_chunk_left_over=left)
    assert chunk.shape == (1, 8, 2)
    assert told[0].count == 2 and told[0].way == "rtc"
    np.testing.assert_allclose(told[0].actions, left[:3])
    for delay, rest in ((0, left), (3, None), (3, torch.zeros(4, 2))):
        policy.predict_action_chunk(batch(0, rows=1), inference_delay=delay, prev_chunk_left_over=rest)
        assert told[-1] is None
    policy.predict_action_chunk(batch(0, rows=1), inference_delay=9, prev_chunk_left_over=left[None])
    assert told[-1].count == 3


def test_a_policy_of_several_frames_does_not_continue(make):
    """LeRobot shows it single frames then, which are far apart."""
    assert not make().supports_rtc()
    assert not make({"n_obs_steps": 1}, stitching="linear").supports_rtc()  # it has no calibration


def test_chunks_are_drawn_beside_the_loop(make, plugin, monkeypatch):
    """The time is the test's: the thread draws at its leisure, and the loop finds the chunk when it is there."""
    clock, planned = [0.0], []
    beside = sys.modules[f"{PLUGIN}.beside"].Beside
    monkeypatch.setattr(plugin, "Beside", lambda *given: beside(*given, now=lambda: clock[0]))
    policy = make(hz=10.0, stitching="inpaint")
    worker = policy._beside._worker
    submit, result = worker.submit, worker.result
    worker.submit = lambda *given: (planned.append(given), submit(*given))
    worker.result = lambda seconds=0.0: result(max(seconds, 60.0))  # whatever the machine is at
    actions = []
    for step in range(12):
        clock[0] = step / 10
        actions.append(policy.select_action(batch(step, rows=1)))
    assert torch.stack(actions).shape == (12, 1, 2) and torch.stack(actions).isfinite().all()
    first = [len(given) for given in planned].index(1, 1)  # the first chunk, after the warm-up
    # A slow first chunk of the warm-up makes one more of it, which continues as many actions as the run.
    assert first in (3, 4) and [len(given) for given in planned[:3]] == [1, 2, 2]
    assert all(given[1].way == "inpaint" and given[1].actions.any() for given in planned[1:first])
    histories = [given[0]["position"] for given in planned[first + 1 :]]
    assert len(histories) >= 2
    for history in histories:  # frames that follow one another: what LeRobot's own rtc does not show
        steps = [step for step in range(12) if np.array_equal(history[1], batch(step, rows=1)["position"][0])]
        assert len(steps) == 1 and np.array_equal(history[0], batch(steps[0] - 1, rows=1)["position"][0])
    assert all(given[1].way == "inpaint" for given in planned[first + 1 :])
    policy.reset()
    planned.clear()
    again = policy.select_action(batch(0, rows=1))
    assert len(planned) == 1  # it is warm
    assert not torch.equal(again, actions[0])  # another episode, other random numbers
    with pytest.raises(SpecpolicyError, match="for one robot"):
        policy.select_action(batch(1))


@pytest.mark.parametrize(
    ("options", "words"),
    (
        ({"observation": {"image": "observation.images.front"}}, "observes no 'image', it observes position, object"),
        ({"execute_steps": 8}, "a chunk has 7 actions to execute"),
        ({"sampler": "recicled"}, "recicled"),
        ({"engine": "steam"}, "steam"),
        ({"hz": 10.0, "stitching": "linear"}, "stitching=linear: this policy cannot continue actions so"),
        ({"hz": 10.0, "stitching": "glue"}, "unknown stitching 'glue'"),
    ),
)
def test_what_cannot_be_is_one_line(options, words, make):
    with pytest.raises(SpecpolicyError, match=words) as caught:
        make(**options)
    assert "\n" not in str(caught.value)


def test_a_source_is_required_and_nothing_is_trained(plugin, make):
    with pytest.raises(SpecpolicyError, match=r"--policy.source is required"):
        plugin.SpecpolicyConfig()
    policy = make()
    for refused in (lambda: policy.forward({}), policy.config.get_optimizer_preset, policy.config.get_scheduler_preset):
        with pytest.raises(SpecpolicyError, match="train them by specpolicy train"):
            refused()
    again = type(policy).from_pretrained(None, config=policy.config)
    assert again.policy.horizon == policy.policy.horizon


def test_tokens_of_a_text_are_made_as_lerobot_saved_it(plugin, tmp_path):
    directory, *_ = write_whole(tmp_path)
    config = plugin.SpecpolicyConfig(source=str(directory), sampler="ddim-3", engine="eager")
    policy = plugin.SpecpolicyPolicy(config)
    processor = importlib.import_module(f"{PLUGIN}.processor_specpolicy")
    before, _ = processor.make_specpolicy_pre_post_processors(config)
    assert [isinstance(step, Tokeniser) for step in before.steps] == [False, False, True, False]
    assert TOKENS not in config.input_features  # LeRobot makes it of the task: no robot observes it
    seen = {STATE: torch.zeros(1, OBS), CAMERA: torch.zeros(1, 3, 40, 40), TOKENS: torch.tensor([[5, 7, *[63] * 8]])}
    assert policy.select_action(seen).shape == (1, ACTIONS)


def test_a_directory_that_does_not_say_how_tokens_are_made(plugin, tmp_path):
    directory, *_ = write_whole(tmp_path)
    saved = load_policy(directory).save(tmp_path / "ours")
    with pytest.raises(SpecpolicyError, match=r"reads a text, .* give the directory that LeRobot saved"):
        plugin.SpecpolicyPolicy(plugin.SpecpolicyConfig(source=str(saved), engine="eager"))


def test_policies_without_a_text_have_no_such_step(plugin, make, tmp_path):
    make()
    processor = importlib.import_module(f"{PLUGIN}.processor_specpolicy")
    config = plugin.SpecpolicyConfig(source=str(tmp_path / "policy"))
    before, _ = processor.make_specpolicy_pre_post_processors(config)
    assert before.steps and not any(isinstance(step, Tokeniser) for step in before.steps)
