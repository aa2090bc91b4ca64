"""The engine of a verb's configuration."""

import json
from pathlib import Path
from typing import Any

from specpolicy.engines import AUTO, ENGINES


def on_engine(policy: Any, name: str, max_rows: int | None = None, precision: str = "float32") -> Any:
    """Return the policy on the named engine, see `make_engine`; print the choice if the name is `auto`.

    Raises:
        SpecpolicyError: the engine is unknown or cannot run the policy.
    """
    if name == "eager" and precision == "float32":
        return policy
    policy = policy.with_engine(name, max_rows, precision)
    if name == AUTO:
        print(chosen(policy))
    return policy


def chosen(policy: Any) -> str:
    """Return a line with the engine that `auto` chose and the times of the others."""
    found = getattr(policy.engine, "considered", {})
    times = [f"{name} {text}" for name, text in found.items() if " ms for " in text]
    return f"engine: {policy.engine_name}" + (f" ({'; '.join(times)})" if times else "")


def engine_for_processes(name: str, policy: Any, settings: Path) -> str:
    """Return `name`, or the choice of `auto`, so that all processes use one engine and results name it.

    Args:
        name: name of the engine, as configured.
        policy: a function that loads the policy, called only if needed.
        settings: file of an earlier run, which is continued with its own engine.
    """
    if name != AUTO:
        return name
    try:
        before = str(json.loads(settings.read_text(encoding="utf-8"))["engine"])
    except (OSError, ValueError, KeyError, TypeError):  # missing or broken: reported by the code that opens it
        before = ""
    return before if before in ENGINES else on_engine(policy(), AUTO).engine_name
