"""`parse`: turns a mapping from outside into a dataclass, checked against the types of its fields.

A schema is a dataclass. Its annotations give the types, its defaults the optional fields, and its `__post_init__` the
ranges (`check_ranges`, `check_choice`). So a value made in Python is checked like one from a file.
"""

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from specpolicy.errors import SpecpolicyError
from specpolicy.parsing.words import closest, shown

T = TypeVar("T")
INTEGERS = 2**63  # larger whole numbers fit no tensor, file or clock
PLAIN: dict[Any, str] = {
    int: "a whole number",
    float: "a finite number",
    bool: "true or false",
    str: "text",
    type(None): "null",
    dict: "a mapping",
}


def parse(kind: type[T], value: Any, where: str | Path, at: str = "") -> T:
    """Make the dataclass `kind` (or one of a union of dataclasses) from a mapping.

    Fields may be annotated with int, float, bool, str, None, Any, Literal, lists and tuples (both become tuples, also
    for Sequence), mappings, dataclasses, and unions of these. In a union of dataclasses, a field that is a Literal in
    all of them, with other values in each, such as `kind: Literal["unet"]`, selects one. Where it is missing, the one
    with the class attribute `without_kind` is meant. Keys of a mapping may be whole numbers, which JSON writes
    as text. A value that already is a dataclass is returned unchanged.

    Args:
        kind: the class to make.
        value: the mapping, as read from JSON or yaml.
        where: its source, such as a file, for messages.
        at: dotted name of the value in the source; "" for all of it.

    Raises:
        SpecpolicyError: an unknown or missing key, a value of another type, or one that a dataclass refuses.
    """
    return _Reader(str(where)).read(kind, value, at)


def check_ranges(instance: Any, **bounds: tuple[float, float]) -> None:
    """Raise if a field of a dataclass lies outside (least, most), both included. None passes; lists are checked one by
    one.

    Raises:
        SpecpolicyError: a field out of range, or one that is not a number.
    """
    for name, (least, most) in bounds.items():
        value = getattr(instance, name)
        several = isinstance(value, Sequence) and not isinstance(value, str)
        for one in value if several else (value,):
            number = isinstance(one, int | float) and not isinstance(one, bool)
            if one is not None and not (number and least <= one <= most):
                raise SpecpolicyError(f"{name} is {shown(one)}: it must be a number from {least:g} to {most:g}")


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Raise if a value is not one of the choices."""
    known = list(choices)
    if value not in known:
        hint = closest(value, known) if isinstance(value, str) else ""
        one_of = f": use one of {', '.join(known)}"
        raise SpecpolicyError(f"unknown {name} {shown(value)}{hint or one_of}")


def plain(value: Any) -> Any:
    """Return a result of `parse` as plain values for JSON or yaml; fields that are None and None by default are left
    out.

    Raises:
        TypeError: a value that a schema cannot hold.
    """
    if dataclasses.is_dataclass(value):
        found = {field: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
        return {f.name: plain(one) for f, one in found.items() if one is not None or f.default is not None}
    if isinstance(value, Mapping):
        return {key if isinstance(key, int) else str(key): plain(one) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(one) for one in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{type(value).__name__} is no plain value")


@functools.lru_cache(maxsize=256)
def _fields(kind: type) -> dict[str, tuple[dataclasses.Field, Any]]:
    """Return the fields of a dataclass that its constructor takes, with their types."""
    hints = typing.get_type_hints(kind)
    return {field.name: (field, hints[field.name]) for field in dataclasses.fields(kind) if field.init}


class _Mismatch(SpecpolicyError):
    """The value at a dotted name has an entirely different type, so another member of a union may still accept it."""

    def __init__(self, message: str, at: str):
        super().__init__(message)
        self.at = at


class _Reader:
    """Reads values from one source, which every message names."""

    def __init__(self, where: str):
        self.where = where

    def read(self, kind: Any, value: Any, at: str) -> Any:
        """Read a value of any annotation."""
        origin = typing.get_origin(kind)
        if kind is Any:
            return value
        if kind in PLAIN and kind is not dict:
            return self.plain(kind, value, at)
        if dataclasses.is_dataclass(kind):
            return self.dataclass(kind, value, at)
        if origin is Literal:
            return self.choice(kind, value, at)
        if origin in (types.UnionType, typing.Union):
            return self.union(typing.get_args(kind), value, at)
        if kind is dict or (isinstance(origin, type) and issubclass(origin, Mapping)):
            return self.mapping(typing.get_args(kind) or (str, Any), value, at)
        if isinstance(origin, type) and issubclass(origin, Sequence):
            return self.sequence(origin, typing.get_args(kind), value, at)
        raise TypeError(f"a schema cannot hold {kind}")

    def fail(self, at: str, reason: str, mismatch: bool = False) -> SpecpolicyError:
        """Return the error for the value at a dotted name."""
        message = f"{self.where}: {shown(at)} {reason}" if at else f"{self.where} {reason}"
        return _Mismatch(message, at) if mismatch else SpecpolicyError(message)

    def wrong(self, kind: Any, value: Any, at: str) -> SpecpolicyError:
        """Return the error for a value of another type."""
        return self.fail(at, f"is {shown(value)}: it must be {_describe(kind)}", mismatch=True)

    def plain(self, kind: Any, value: Any, at: str) -> Any:
        """Read a number, a text, true, false or null."""
        if kind is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < INTEGERS:
            value = float(value)
        right = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
        if right and kind is float:
            right = math.isfinite(value)
        if right and kind is int:
            right = abs(value) < INTEGERS
        if not right:
            raise self.wrong(kind, value, at)
        return value

    def choice(self, kind: Any, value: Any, at: str) -> Any:
        """Read one of the values of a Literal."""
        known = typing.get_args(kind)
        # 1 == True == 1.0 in Python, but not here.
        if any(type(value) is type(one) and value == one for one in known):
            return value
        names = [one for one in known if isinstance(one, str)]
        hint = closest(value, names) if isinstance(value, str) else ""
        wanted = f": it must be {_describe(kind)}"
        raise self.fail(at, f"is {shown(value)}{hint or wanted}", mismatch=not isinstance(value, str))

    def dataclass(self, kind: Any, value: Any, at: str) -> Any:
        """Read a mapping whose keys are the fields."""
        if isinstance(value, kind):
            return value
        if not isinstance(value, Mapping):
            raise self.wrong(kind, value, at)
        fields = _fields(kind)
        for key in value:
            if key not in fields:
                hint = closest(key, fields) if isinstance(key, str) else ""
                name = f"{at}.{key}" if at else str(key)
                known = f"; known: {', '.join(fields)}" if fields else ""
                raise SpecpolicyError(f"{self.where}: unknown key {shown(name)}{hint or known}")
        made = {}
        for name, (field, hint) in fields.items():
            if name in value:
                made[name] = self.read(hint, value[name], f"{at}.{name}" if at else name)
            elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                raise SpecpolicyError(f"{self.where} lacks {shown(f'{at}.{name}' if at else name)}")
        try:
            return kind(**made)
        except SpecpolicyError as error:
            inside = f"{shown(at)}: " if at else ""
            raise SpecpolicyError(f"{self.where}: {inside}{error}") from None

    def union(self, kinds: tuple[Any, ...], value: Any, at: str) -> Any:
        """Read a value of one of several types."""
        classes = [kind for kind in kinds if dataclasses.is_dataclass(kind)]
        if len(classes) > 1 and isinstance(value, Mapping):
            return self.dataclass(self.member(classes, value, at), value, at)
        errors = []
        for kind in kinds:
            try:
                return self.read(kind, value, at)
            except SpecpolicyError as error:
                errors.append(error)
        # The intended type gives the best error message.
        meant = [error for error in errors if not isinstance(error, _Mismatch) or error.at != at]
        raise meant[0] if meant else self.wrong(typing.Union[kinds], value, at)  # noqa: UP007

    def member(self, classes: Sequence[Any], value: Mapping, at: str) -> Any:
        """Return the dataclass, of several, that a mapping is meant for."""
        literals = [{n: h for n, (_, h) in _fields(c).items() if typing.get_origin(h) is Literal} for c in classes]
        tags = []
        for name in literals[0]:
            if all(name in others for others in literals):
                values = [one for others in literals for one in typing.get_args(others[name])]
                tags += [name] * (len(set(values)) == len(values))
        assert tags, f"{classes} have no Literal field in common that tells them apart"
        tag = tags[0]
        if tag not in value:
            for one in classes:
                if getattr(one, "without_kind", False):
                    return one
            raise SpecpolicyError(f"{self.where} lacks {shown(f'{at}.{tag}' if at else tag)}")
        known = {one: c for c, own in zip(classes, literals, strict=True) for one in typing.get_args(own[tag])}
        chosen = self.choice(Literal[tuple(known)], value[tag], f"{at}.{tag}" if at else tag)
        return known[chosen]

    def mapping(self, kinds: tuple[Any, ...], value: Any, at: str) -> Any:
        """Read a mapping with free keys."""
        if not isinstance(value, Mapping):
            raise self.wrong(dict, value, at)
        made = {}
        for key, one in value.items():
            name = f"{at}.{key}" if at else str(key)
            if kinds[0] is int and isinstance(key, str) and key.isdecimal() and key.isascii() and len(key) < 19:
                key = int(key)
            if not isinstance(key, kinds[0]) or isinstance(key, bool):
                raise self.fail(at, f"has the key {shown(key)}: its keys must be {_describe(kinds[0])}")
            if key in made:
                raise self.fail(name, "stands there twice")
            made[key] = self.read(kinds[1], one, name)
        return made

    def sequence(self, origin: Any, kinds: tuple[Any, ...], value: Any, at: str) -> tuple[Any, ...]:
        """Read a list, of any length or of a fixed one."""
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            raise self.wrong(Sequence, value, at)
        fixed = origin is tuple and not (len(kinds) == 2 and kinds[1] is Ellipsis)
        if fixed and len(value) != len(kinds):
            raise self.fail(at, f"has {len(value)} entries: it must have {len(kinds)}")
        each = kinds if fixed else (kinds[0],) * len(value)
        return tuple(self.read(kind, one, f"{at}[{i}]") for i, (kind, one) in enumerate(zip(each, value, strict=True)))


def _describe(kind: Any) -> str:
    """Describe the allowed values in words."""
    if kind in PLAIN:
        return PLAIN[kind]
    origin = typing.get_origin(kind)
    if origin is Literal:
        names = [one if isinstance(one, str) else repr(one) for one in typing.get_args(kind)]
        return f"one of {', '.join(names)}" if len(names) > 1 else names[0]
    if origin in (types.UnionType, typing.Union):
        several = list(dict.fromkeys(_describe(one) for one in typing.get_args(kind)))
        return " or ".join(several)
    if dataclasses.is_dataclass(kind) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        return "a mapping"
    return "a list"
