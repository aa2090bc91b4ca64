"""Values of a wrong type or out of range, for every key of every verb: one line, before anything is done."""

import copy
import dataclasses
import functools
import math

import pytest
from omegaconf import OmegaConf

from specpolicy.cli import VERBS, main
from specpolicy.cli.configuration import compose_verb
from specpolicy.cli.groups import SHIPPED
from specpolicy.cli.overrides import parse_override
from specpolicy.cli.values import KINDS, OPTIONAL, RANGES, check_ranges, check_types
from specpolicy.control.execution import Execution
from specpolicy.errors import SpecpolicyError

REQUIRED = {verb: ["task=lift"] for verb in ("collect", "train", "evaluate", "rollout", "control")}
NEEDED = {verb: ["policy=x"] for verb in VERBS if verb not in ("collect", "train", "convert")}
NEEDED["convert"] = ["path=x", "out=y"]
WRONG = {
    bool: ("null", "abc", "3", "[true]", "{a: 1}"),
    int: ("null", "abc", "2.5", "true", "nan", "[1]", "{a: 1}", "'3'", str(10**30)),
    float: ("null", "abc", "true", "nan", "inf", "[1.5]", "{a: 1}", "'3.5'"),
    str: ("null", "[a]", "{a: 1}"),
    list: ("null", "[null]", "[[1]]"),
}


@functools.cache
def shipped(verb):
    return OmegaConf.load(SHIPPED / f"{verb}.yaml")


def cases():
    for verb in VERBS:
        for key, value in OmegaConf.to_container(shipped(verb)).items():
            kind = KINDS.get(key) or type(value)
            if key != "defaults" and value != "???" and "${" not in str(value):
                for wrong in WRONG.get(kind, ()):
                    if wrong != "null" or (value is not None and key not in OPTIONAL):
                        yield verb, f"{key}={wrong}"


def checked(verb, given):
    """The verb's own settings and one of the user's, checked as `compose_verb` does, without Hydra's time."""
    own, (key, _, value) = shipped(verb), given.partition("=")
    config = copy.deepcopy(own)
    config[key] = parse_override(f"x={value}").value()
    check_types(config, own)
    check_ranges(config, verb)


def compose(verb, *arguments):
    return compose_verb(verb, [*REQUIRED.get(verb, []), *NEEDED.get(verb, []), *arguments])


@pytest.mark.parametrize("verb", VERBS)
def test_a_value_of_another_type_is_refused_by_the_name_of_its_key(verb):
    wrong = [given for one, given in cases() if one == verb]
    for given in wrong:
        with pytest.raises(SpecpolicyError) as raised:
            checked(verb, given)
        key = given.partition("=")[0]
        assert str(raised.value).startswith(f"{key}=") and "\n" not in str(raised.value), given
    assert wrong


@dataclasses.dataclass
class Structured:
    """Some keys as Hydra's structured configurations would declare them."""

    episodes: int = 100
    keep_failures: bool = False
    noise: float = 0.15


@pytest.mark.parametrize("given", ["episodes='3'", "keep_failures=3", "noise=nan", "noise='3.5'", f"episodes={10**30}"])
def test_structured_configurations_of_hydra_would_take_what_is_refused(given):
    """Why types are checked here: the day that this fails, one mechanism may do."""
    key, _, value = given.partition("=")
    OmegaConf.update(OmegaConf.structured(Structured), key, parse_override(f"x={value}").value())
    with pytest.raises(SpecpolicyError, match=f"^{key}="):
        compose("collect", given)


def test_null_is_taken_where_the_yaml_says_so():
    assert compose("control", "watchdog=null").watchdog is None
    assert compose("serve", "idle_seconds=null").idle_seconds is None


@pytest.mark.parametrize("verb", RANGES)
def test_a_number_out_of_range_is_refused_by_the_name_of_its_key(verb):
    for key, (least, most) in RANGES[verb].items():
        below = "0" if 0 < least < 1 else str(int(least) - 1)
        for given in (f"{key}={below}", *([] if most == math.inf else [f"{key}={most + 1}"])):
            with pytest.raises(SpecpolicyError, match=rf"^{key}=.*: expected (at least|a positive|a share)"):
                checked(verb, given)


def test_a_wrong_value_is_one_line_and_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for verb, given in (("control", "hz=abc"), ("train", "pad_after=[1]"), ("train_drafter", "kinds=null")):
        assert main([verb, *REQUIRED.get(verb, []), *NEEDED.get(verb, []), given]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("hold", [("a",), (True,), (math.nan,), ((1.0,),), (math.inf, None)])
def test_a_held_action_is_of_numbers(hold):
    with pytest.raises(SpecpolicyError, match="hold="):
        Execution(hold=hold)


@pytest.mark.parametrize("wrong", ["17", "true", "[1,a]", "[[a]]", "[null]"])
def test_the_keys_that_a_task_observes_are_names(wrong):
    with pytest.raises(SpecpolicyError, match=r"^task\.observation_keys=.*: expected a list of names"):
        compose("train", f"task.observation_keys={wrong}")


def test_one_observed_key_may_stand_alone_and_null_is_all():
    assert compose("train", "task.observation_keys=null").task.observation_keys is None
    assert compose("train", "task.observation_keys=state").task.observation_keys == ["state"]


@pytest.mark.parametrize("name", [17, 2.5, True, None])
def test_an_engine_that_is_no_name_is_unknown(name, small_policy):
    with pytest.raises(SpecpolicyError, match=f"unknown engine '{name}'"):
        small_policy.with_engine(name)
