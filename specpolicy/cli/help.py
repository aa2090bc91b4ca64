"""The text of `specpolicy <verb> --help`, made from the verb's docstring and its commented yaml."""

import importlib
import inspect
import re
from collections.abc import Sequence
from pathlib import Path

from specpolicy.cli.groups import REQUIRED, SHIPPED, default_groups, option_names


def verb_help(verb: str, config_directories: Sequence[Path] = ()) -> str:
    """Return a verb's help: its docstring, config groups, keys with defaults, and the common options."""
    module = importlib.import_module(f"specpolicy.cli.{verb}")
    comments, keys = _split((SHIPPED / f"{verb}.yaml").read_text(encoding="utf-8"))
    parts = [inspect.cleandoc(module.__doc__ or ""), f"Usage: specpolicy {verb} key=value ..."]
    groups = default_groups(verb)
    if groups:
        lines = []
        for group, option in groups.items():
            state = "required" if option == REQUIRED else f"default {option or 'null'}"
            about = f"  # {comments[group]}" if group in comments else ""
            names = ", ".join(option_names(group, config_directories))
            lines.append(f"  {group}={names}  ({state}){about}")
        parts.append("Choices (their own keys are set as group.key=value):\n" + "\n".join(lines))
    parts.append("Keys and their defaults (??? must be given, null means unset):\n" + _indent(keys))
    parts.append(
        "Options:\n"
        "  --help            this text\n"
        "  --multirun, -m    run a job for each combination of values, such as seed=1,2; see docs/command_line.md\n"
        "  --cfg             print the resulting configuration and stop; --cfg hydra prints Hydra's own\n"
        "  --config-dir DIR  find more options for the choices in DIR, for instance DIR/task/mine.yaml\n"
        "  --hydra-help      list the options of every Hydra application\n"
        "Add a key that is not listed with a plus: +task.kwargs.max_seconds=5"
    )
    return "\n\n".join(parts)


def _split(text: str) -> tuple[dict[str, str], str]:
    """Split a yaml file into the comments of its defaults list, by group, and the text of its keys."""
    comments: dict[str, str] = {}
    keys = []
    in_defaults = False
    for line in text.splitlines():
        if line.startswith("defaults:"):
            in_defaults = True
        elif in_defaults and re.match(r"\s*(-|#|$)", line) and line.strip():
            entry = re.match(r"\s*- (\w+):\s*\S+\s*#\s*(.*)", line)
            if entry:
                comments[entry[1]] = entry[2]
        else:
            in_defaults = False
            keys.append(line)
    return comments, "\n".join(keys).strip("\n")


def _indent(text: str) -> str:
    return "\n".join(f"  {line}".rstrip() for line in text.splitlines())
