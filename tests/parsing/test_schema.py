"""Mappings from outside become dataclasses, or one line that names the value and what it must be."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from specpolicy.errors import SpecpolicyError
from specpolicy.parsing import check_choice, check_ranges, parse


@dataclass(frozen=True)
class Circle:
    kind: Literal["circle"]
    radius: float = 1.0


@dataclass(frozen=True)
class Box:
    kind: Literal["box"]
    size: tuple[int, int]


@dataclass(frozen=True)
class Drawing:
    shape: Circle | Box
    horizon: int
    clip: float | None = 1.0
    name: str = "drawing"
    dims: Sequence[int] = (1, 2)
    keys: Mapping[str, int | Sequence[int]] = field(default_factory=dict)
    rotations: dict[int, Literal["euler", "axis"]] = field(default_factory=dict)
    shared: bool = False
    note: Any = None

    def __post_init__(self) -> None:
        check_ranges(self, horizon=(1, 64), clip=(0.1, 10), dims=(1, 512))


RIGHT: dict[str, Any] = {"shape": {"kind": "box", "size": [3, 4]}, "horizon": 8}


def test_types_come_from_the_annotations():
    made = parse(
        Drawing,
        RIGHT | {"clip": 2, "dims": [4, 8], "keys": {"a": 3, "b": [3, 9, 9]}, "rotations": {"3": "axis"}, "note": [1]},
        "drawing.json",
    )
    assert made == Drawing(
        Box("box", (3, 4)), 8, 2.0, dims=(4, 8), keys={"a": 3, "b": (3, 9, 9)}, rotations={3: "axis"}, note=[1]
    )
    assert type(made.clip) is float and parse(Drawing, made, "again") is made
    assert parse(Drawing, RIGHT | {"shape": Circle("circle"), "clip": None}, "d").shape == Circle("circle")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"horizon": True}, "d.json: 'horizon' is True: it must be a whole number"),
        ({"horizon": 8.0}, "d.json: 'horizon' is 8.0: it must be a whole number"),
        ({"horizon": "8"}, "d.json: 'horizon' is '8': it must be a whole number"),
        ({"horizon": None}, "d.json: 'horizon' is None: it must be a whole number"),
        ({"horizon": 10**30}, "d.json: 'horizon' is a number of more than 64 bits: it must be a whole number"),
        ({"horizon": 0}, "d.json: horizon is 0: it must be a number from 1 to 64"),
        ({"dims": [1, 1024]}, "d.json: dims is 1024: it must be a number from 1 to 512"),
        ({"dims": "12"}, "d.json: 'dims' is '12': it must be a list"),
        ({"dims": [1, 2.5]}, "d.json: 'dims[1]' is 2.5: it must be a whole number"),
        ({"clip": float("nan")}, "d.json: 'clip' is nan: it must be a finite number or null"),
        ({"clip": float("inf")}, "d.json: 'clip' is inf: it must be a finite number or null"),
        ({"clip": 10**400}, "d.json: 'clip' is a number of more than 64 bits: it must be a finite number or null"),
        ({"clip": False}, "d.json: 'clip' is False: it must be a finite number or null"),
        ({"name": 3}, "d.json: 'name' is 3: it must be text"),
        ({"shared": 1}, "d.json: 'shared' is 1: it must be true or false"),
        ({"keys": [1]}, "d.json: 'keys' is a list of 1: it must be a mapping"),
        ({"keys": {"a": "x"}}, "d.json: 'keys.a' is 'x': it must be a whole number or a list"),
        ({"keys": {"a": [1, "x"]}}, "d.json: 'keys.a[1]' is 'x': it must be a whole number"),
        ({"keys": {3: 1}}, "d.json: 'keys' has the key 3: its keys must be text"),
        ({"rotations": {"x": "axis"}}, "d.json: 'rotations' has the key 'x': its keys must be a whole number"),
        ({"rotations": {"0": "axix"}}, "d.json: 'rotations.0' is 'axix'; did you mean 'axis'?"),
        ({"rotations": {"0": "axis", "00": "axis"}}, "d.json: 'rotations.00' stands there twice"),
        ({"shape": 3}, "d.json: 'shape' is 3: it must be a mapping"),
        ({"shape": {}}, "d.json lacks 'shape.kind'"),
        ({"shape": {"kind": "bax"}}, "d.json: 'shape.kind' is 'bax'; did you mean 'box'?"),
        ({"shape": {"kind": "zzz"}}, "d.json: 'shape.kind' is 'zzz': it must be one of circle, box"),
        ({"shape": {"kind": ["box"]}}, "d.json: 'shape.kind' is a list of 1: it must be one of circle, box"),
        ({"shape": {"kind": "box"}}, "d.json lacks 'shape.size'"),
        ({"shape": {"kind": "box", "size": [1]}}, "d.json: 'shape.size' has 1 entries: it must have 2"),
        ({"shape": {"kind": "circle", "radios": 1}}, "d.json: unknown key 'shape.radios'; did you mean 'radius'?"),
        ({"shape": {"kind": "circle", "size": 1}}, "d.json: unknown key 'shape.size'; known: kind, radius"),
        ({"horison": 8}, "d.json: unknown key 'horison'; did you mean 'horizon'?"),
        ({"a\nb": 8}, "d.json: unknown key 'a\\nb'; known: shape, horizon, clip, "),
        ({"name": ["\n"]}, "d.json: 'name' is a list of 1: it must be text"),
        ({"horizon": "\n" + "x" * 500}, "d.json: 'horizon' is '\\n" + "x" * 57 + "...: it must be a whole number"),
    ],
)
def test_what_does_not_fit_is_named_on_one_line(change, message):
    with pytest.raises(SpecpolicyError) as error:
        parse(Drawing, RIGHT | change, "d.json")
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_missing_keys_are_named():
    with pytest.raises(SpecpolicyError, match=r"^d\.json lacks 'horizon'$"):
        parse(Drawing, {"shape": RIGHT["shape"]}, "d.json")
    with pytest.raises(SpecpolicyError, match=r"^d\.json is a list of 0: it must be a mapping$"):
        parse(Drawing, [], "d.json")


def test_the_place_may_be_inside_something_larger():
    with pytest.raises(SpecpolicyError, match=r"^train: unknown key 'policy\.horison'; did you mean 'horizon'\?$"):
        parse(Drawing, RIGHT | {"horison": 1}, "train", at="policy")


def test_ranges_hold_for_values_made_in_python():
    with pytest.raises(SpecpolicyError, match="horizon is 65"):
        Drawing(Circle("circle"), 65)
    with pytest.raises(SpecpolicyError, match="horizon is 'x'"):
        Drawing(Circle("circle"), "x")  # type: ignore[arg-type]


def test_choices_name_the_closest():
    check_choice("crop", "floor", ("round", "floor"))
    with pytest.raises(SpecpolicyError, match="unknown crop 'flor'; did you mean 'floor'"):
        check_choice("crop", "flor", ("round", "floor"))
    with pytest.raises(SpecpolicyError, match="unknown crop 3: use one of round, floor"):
        check_choice("crop", 3, ("round", "floor"))
