"""Shell completion of verbs, switches, keys, options of groups and files, by Hydra's own plugins.

`eval "$(specpolicy -sc install=bash)"` (or zsh, fish) makes the shell call `specpolicy -sc query=bash`, as for every
Hydra application. Added here: the verb as the first word, and keys that show before required settings are given.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra._internal.hydra import Hydra
from hydra.plugins.completion_plugin import CompletionPlugin, DefaultCompletionPlugin
from hydra.types import RunMode
from omegaconf import DictConfig

from specpolicy.cli import VERBS
from specpolicy.cli.loader import VerbLoader
from specpolicy.cli.options import Parser
from specpolicy.errors import SpecpolicyError

SWITCHES = ("--shell-completion", "-sc")


def complete(overrides: Sequence[str]) -> None:
    """Print what a shell evaluates (install=bash, uninstall=bash), or the possible completions (query=bash).

    Raises:
        SpecpolicyError: neither of these, or a shell without a plugin in Hydra.
    """
    what, _, shell = (overrides[0] if len(overrides) == 1 else "").partition("=")
    loader = Completing("collect")
    shells = Hydra.get_shell_to_plugin_map(loader)
    if what not in ("install", "uninstall", "query") or shell not in shells:
        known = ", ".join(f"{one}={name}" for one in ("install", "uninstall") for name in shells)
        raise SpecpolicyError(f"--shell-completion takes one of {known}")
    if what == "query":
        print("\n".join(candidates(os.environ.get("COMP_LINE", ""))))
        return
    plugin = shells[shell][0]
    with _named():
        plugin.install() if what == "install" else plugin.uninstall()


def candidates(line: str) -> list[str]:
    """List the completions of the last word of a command line."""
    words = line.split()[1:]
    word = "" if not words or line[-1:].isspace() else words[-1]
    if not words or (len(words) == 1 and word):
        return [verb for verb in VERBS if verb.startswith(word)]
    verb = words[0]
    if verb not in VERBS:
        return []
    if word.startswith("-"):
        return [name for name in Parser().names() if name.startswith(word)]
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            options = Parser().parse_known_intermixed_args(words[1:])[0]
            loader = Completing(verb, [Path(one).resolve() for one in options.config_dir])
            found = DefaultCompletionPlugin(loader)._query(
                verb, " ".join([*options.overrides, *([] if word else [""])])
            )
    except (SystemExit, Exception):  # the line cannot be parsed yet
        found = []
    key, equals, value = word.partition("=")
    return _files(key, value) if equals and found in ([], [word]) else found


class Completing(VerbLoader):
    """Composes what is there; a missing required choice hides no key."""

    def __init__(self, verb: str, config_directories: Sequence[Path] = ()) -> None:
        super().__init__(verb, config_directories, checked=False)

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        return super().load_configuration(config_name, overrides, RunMode.MULTIRUN, from_shell, False)


def _files(key: str, value: str) -> list[str]:
    """List the files that complete a value; directories end in a slash."""
    here = "" if os.path.dirname(value) else "./"
    paths = [path for path in sorted(CompletionPlugin.complete_files(here + value)) if value or path[2] != "."]
    return [f"{key}={path.removeprefix(here)}" + ("/" if os.path.isdir(path) else "") for path in paths]


@contextlib.contextmanager
def _named() -> Iterator[None]:
    """Make plugins see the name "specpolicy"; they take the program's name from sys.argv."""
    before, sys.argv = sys.argv, ["specpolicy"]
    try:
        yield
    finally:
        sys.argv = before
