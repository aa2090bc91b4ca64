"""Configurations with interpolations, and formulas without Python's eval."""

import pytest

from specpolicy import SpecpolicyError
from specpolicy.integrations.interpolation import Config, calculate


def test_interpolations_are_followed_where_they_stand():
    config = Config(
        {
            "task": {"dim": 3, "shape": ["${task.dim}", 4], "name": "push"},
            "horizon": "${eval:'${task.dim} * 4 + 4'}",
            "title": "run_${task.name}_${horizon}",
            "link": "${task}",
            "when": "${now:%H}",
        },
        "file",
    )
    assert config.get("horizon") == 16
    assert config.get("title") == "run_push_16"
    assert config.get("link.shape") == [3, 4] and config.get("link") == {"dim": 3, "shape": [3, 4], "name": "push"}
    assert config.get("task.shape.1") == 4 and config.get("task.shape.7") is None
    assert config.get("absent.deep", 5) == 5
    assert config.get("when") == "(now:%H)"
    with pytest.raises(SpecpolicyError, match="file: its configuration lacks 'absent'"):
        config.need("absent")


@pytest.mark.parametrize(
    "text, value",
    (
        ("1 + 2 * 3", 7),
        ("-(4 // 3) % 5", 4),
        ("8 if True else 9", 8),
        ("8 if not 3 > 2 else 9", 9),
        ("None", None),
        ("2 if False or True else 20 + 2", 2),  # as Diffusion Policy's own files have it
        ("2 if False or 1 > 2 else 20 + 2", 22),
        ("True and False", False),
        ("1 and 2 and 3", 3),
        ("0 or None or 4 or 1 / 0", 4),
    ),
)
def test_formulas(text, value):
    assert calculate(text, "file") == value


@pytest.mark.parametrize("text", ("__import__('os')", "open", "1 / 0", "'a' * 3", "[1]", "1 +", "(1).real", "9 ** 9"))
def test_anything_else_is_refused(text):
    with pytest.raises(SpecpolicyError, match="file: cannot calculate"):
        calculate(text, "file")


def test_a_cycle_ends():
    with pytest.raises(SpecpolicyError, match="never ends"):
        Config({"a": "${b}", "b": "x${a}"}, "file").get("a")


@pytest.mark.parametrize("text", ("x${big}", "${big}x", "${big}${big}", "${eval:'${big}'}"))
def test_one_long_text_in_many_places_is_not_copied(text):
    config = Config({"big": "y" * 1_000_000, "many": [text] * 1000, "whole": "${big}"}, "file")
    assert len(config.get("whole")) == 1_000_000
    with pytest.raises(SpecpolicyError, match="file: an interpolation in its configuration is too long"):
        config.get("many")


def test_nor_are_many_short_ones():
    config = Config({"short": "y" * 4000, "many": ["x${short}${short}"] * 4000}, "file")
    with pytest.raises(SpecpolicyError, match="come to more than"):
        config.get("many")
