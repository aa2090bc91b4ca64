"""The engine of a verb's configuration."""

from typing import Any


def on_engine(policy: Any, name: str, max_rows: int | None = None, precision: str = "float32") -> Any:
    """The policy on the engine of that name, see `make_engine`; what `auto` has found out is said.

    Raises:
        SpecpolicyError: an unknown engine, or one that cannot run the policy.
    """
    if name == "eager" and precision == "float32":
        return policy
    policy = policy.with_engine(name, max_rows, precision)
    considered = getattr(policy.engine, "considered", {})
    if considered:
        print(f"engine=auto is {policy.engine.name} here")
        for candidate, found in considered.items():
            print(f"  {candidate}: {found}")
    return policy
