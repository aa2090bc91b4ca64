"""The engine of a verb's configuration."""

import json
from pathlib import Path
from typing import Any

from specpolicy.engines import AUTO, ENGINES


def on_engine(policy: Any, name: str, max_rows: int | None = None, precision: str = "float32") -> Any:
    """The policy on the engine of that name, see `make_engine`; what `auto` has chosen is printed.

    Raises:
        SpecpolicyError: an unknown engine, or one that cannot run the policy.
    """
    if name == "eager" and precision == "float32":
        return policy
    policy = policy.with_engine(name, max_rows, precision)
    if name == AUTO:
        print(chosen(policy))
    return policy


def chosen(policy: Any) -> str:
    """A line that names the engine that `auto` has chosen, and what the others would take."""
    found = getattr(policy.engine, "considered", {})
    times = [f"{name} {text}" for name, text in found.items() if " ms for " in text]
    return f"engine: {policy.engine_name}" + (f" ({'; '.join(times)})" if times else "")


def engine_for_processes(name: str, policy: Any, settings: Path) -> str:
    """`name`, or what `auto` is here, so that all processes have the same engine and results say which.

    Args:
        policy: a function that loads it, called only where it must be.
        settings: the file of an earlier run, which is continued with its own engine.
    """
    if name != AUTO:
        return name
    try:
        before = str(json.loads(settings.read_text(encoding="utf-8"))["engine"])
    except (OSError, ValueError, KeyError, TypeError):  # none, or not one: whoever opens it says so
        before = ""
    return before if before in ENGINES else on_engine(policy(), AUTO).engine_name
