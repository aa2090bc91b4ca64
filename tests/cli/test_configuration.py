"""Composing a verb's configuration: groups, the user's own directory, types, saving."""

import pytest
from omegaconf import OmegaConf

from specpolicy.cli.configuration import compose_verb, load_option, option_names, save_config
from specpolicy.errors import SpecpolicyError
from specpolicy.sampler_names import make_sampler

TASKS = ["can", "gym", "gym_aloha", "gym_pusht", "lift", "lift_conveyor", "push_t", "push_t_moving", "square"]


def test_every_shipped_task_composes():
    assert option_names("task") == TASKS
    for name in TASKS:
        extra = ["task.id=Pendulum-v1"] if name == "gym" else []
        task = compose_verb("collect", [f"task={name}", *extra]).task
        assert task.name == name
        cameras = {"cameras", "camera_size", "proprioception"}
        assert set(task) - {"rename"} == {"name", "id", "kwargs", "observation_keys", *cameras}


def test_task_ids_are_registered():
    import gymnasium

    import specpolicy_envs

    specpolicy_envs.register_envs()
    ids = {load_option("task", name).id for name in TASKS if not name.startswith("gym")}
    assert ids <= set(gymnasium.registry)
    assert len(ids) == 6


def test_a_directory_of_the_users_own_is_searched_first(tmp_path):
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "mine.yaml").write_text("name: mine\nid: mine:Mine-v0\nkwargs: {}\nobservation_keys: null\n")
    config = compose_verb("collect", ["task=mine"], [tmp_path])
    assert (config.task.id, config.output) == ("mine:Mine-v0", "data/mine.hdf5")
    assert "mine" in option_names("task", [tmp_path])
    assert load_option("task", "mine", config.config_directories).name == "mine"
    with pytest.raises(SpecpolicyError, match="unknown task 'minee'; did you mean 'mine'"):
        compose_verb("collect", ["task=minee"], [tmp_path])


def test_composing_leaves_no_state_behind(tmp_path):
    first = compose_verb("collect", ["task=lift", "seed=1"])
    assert compose_verb("collect", ["task=lift"]).seed == 0
    assert first.seed == 1


def test_load_option_names_the_closest(tmp_path):
    assert dict(load_option("sampler", "ddim")) == {"name": "ddim", "steps": 10, "eta": 0.0}
    with pytest.raises(SpecpolicyError, match="unknown sampler 'dimm'; did you mean 'ddim'"):
        load_option("sampler", "dimm")


def test_a_key_may_share_the_name_of_a_group_of_another_verb():
    """`policy` is a group of train; evaluate's key of that name holds a path."""
    config = compose_verb("evaluate", ["task=lift", "policy=checkpoints/lift"])
    assert config.policy == "checkpoints/lift"
    with pytest.raises(SpecpolicyError, match="policy is required"):
        compose_verb("evaluate", ["task=lift"])


def test_a_scalar_stands_for_a_list_of_one():
    config = compose_verb("evaluate", ["task=lift", "policy=x", "samplers=ddpm"])
    assert config.samplers == ["ddpm"]


def test_saved_configuration_is_resolved_and_complete(tmp_path):
    config = compose_verb("collect", ["task=square", "noise=0.3"])
    path = save_config(config, tmp_path / "run")
    assert path == tmp_path / "run" / "config.yaml"
    assert OmegaConf.load(path) == config
    assert "${" not in path.read_text()
    assert save_config(config, tmp_path / "square.yaml") == tmp_path / "square.yaml"


def test_a_number_behind_a_sampler_is_its_steps():
    common = ["task=lift", "policy=checkpoints/lift"]
    config = compose_verb("rollout", [*common, "sampler=recycled-16", "sampler.window=4"])
    assert (config.sampler.name, config.sampler.steps, config.sampler.window) == ("recycled", 16, 4)
    with pytest.raises(SpecpolicyError, match=r"unknown key 'sampler\.steps'"):
        compose_verb("rollout", [*common, "sampler=threshold-16"])


def test_every_sampler_of_the_configuration_can_be_made():
    for name in option_names("sampler"):
        options = dict(load_option("sampler", name))
        assert make_sampler(**options).name == name


def test_hints_name_a_near_key_or_the_option_that_has_it():
    common = ["task=lift", "policy=checkpoints/lift"]
    for override, hint in (
        ("track.delays=[1]", "'track.delays'; track=delay has it"),
        ("episode=3", "'episode'; did you mean 'episodes'?"),
        ("track.nam=3", "'track.nam'; did you mean 'track.name'?"),
        ("track.zebra=3", r"unknown key 'track.zebra' \(specpolicy"),
        ("+track.zebra=3", r"unknown key 'track.zebra'; known: track.name"),
        ("task.kwargs.zebra=3", r"'task.kwargs.zebra'; to add a key write \+task.kwargs.zebra=3"),
    ):
        with pytest.raises(SpecpolicyError, match=hint):
            compose_verb("evaluate", [*common, override])
    for override in ("policy.zebra=3", "policy.network.zebra=3"):  # which a + before it would not make known
        with pytest.raises(SpecpolicyError, match=r"^unknown key 'policy[a-z.]*zebra' \(specpolicy"):
            compose_verb("train", ["task=lift", override])
    with pytest.raises(SpecpolicyError, match=r"'task.rename.front'; to add a key write \+task.rename.front=pixels"):
        compose_verb("evaluate", ["task=gym_pusht", "policy=x", "task.rename.front=pixels"])
