"""Checks of sampler options; each sampler calls them in `__post_init__`."""

from typing import Any

from specpolicy.errors import SpecpolicyError


def check_counts(sampler: Any, *options: str, optional: bool = True) -> None:
    """Raise unless each option is a positive whole number, or None where it is `optional`."""
    for option in options:
        value = getattr(sampler, option)
        if not _is_count(value) and not (optional and value is None):
            raise _refusal(sampler, option, "a positive integer")


def check_amounts(sampler: Any, *options: str, optional: bool = False) -> None:
    """Raise unless each option is a number of zero or more, or None where it is `optional`."""
    for option in options:
        value = getattr(sampler, option)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number and value >= 0) and not (optional and value is None):
            raise _refusal(sampler, option, "zero or positive")


def check_switches(sampler: Any, *options: str) -> None:
    """Raise unless each option is True, False or None."""
    for option in options:
        if not isinstance(getattr(sampler, option), bool | None):
            raise _refusal(sampler, option, "True or False")


def check_window(sampler: Any, also: tuple[str, ...] = ()) -> None:
    """Raise unless `window` is a positive whole number, None, one of the words in `also`, or a list of one window per
    step, which is compared with the chain when the sampler is bound."""
    window = sampler.window
    if not (window is None or _is_count(window) or isinstance(window, list | tuple) or window in also):
        raise _refusal(sampler, "window", ", ".join(["a positive integer", "null", *also]))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _refusal(sampler: Any, option: str, expected: str) -> SpecpolicyError:
    value = getattr(sampler, option)
    return SpecpolicyError(f"option '{option}' of sampler '{sampler.name}' must be {expected}, got {value!r}")
