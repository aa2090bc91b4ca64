"""Everything after the verb: Hydra's switches, read by Hydra's own parser, and key=value settings."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from hydra._internal.utils import get_args_parser

from specpolicy.errors import SpecpolicyError
from specpolicy.parsing import closest

# {switch that may stand without a value: (values that it takes, value that it has alone)}
ALONE = {
    **dict.fromkeys(("--cfg", "-c"), (("job", "hydra", "all"), "job")),
    **dict.fromkeys(("--info", "-i"), (("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"), "all")),
}


class Parser(argparse.ArgumentParser):
    """Hydra's argument parser, except that errors are exceptions and --config-dir may be repeated."""

    def __init__(self) -> None:
        super().__init__(parents=[get_args_parser()], add_help=False, allow_abbrev=False, conflict_handler="resolve")
        about = "A directory with more options for the choices, searched first; may be given repeatedly"
        self.add_argument("--config-dir", "-cd", action="append", default=[], help=about)

    def error(self, message: str) -> None:  # type: ignore[override]
        raise SpecpolicyError(message.removeprefix("argument "))

    def names(self) -> list[str]:
        """Return all switches as they are written."""
        return [name for action in self._actions for name in action.option_strings]


def parse_options(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the switches and, as `overrides`, the settings, given in any order.

    Raises:
        SpecpolicyError: a switch is unknown or lacks its value, or several switches exclude each other.
    """
    parser = Parser()
    options, unknown = parser.parse_known_intermixed_args(_with_values(arguments))
    if unknown:
        hint = closest(unknown[0].partition("=")[0], parser.names())
        raise SpecpolicyError(f"unknown option '{unknown[0]}'{hint}; settings are written key=value")
    for directory in options.config_dir:
        if not directory or not Path(directory).is_dir():
            raise SpecpolicyError(f"--config-dir {directory}: no such directory")
    options.config_dir = [Path(directory).resolve() for directory in options.config_dir]
    if options.config_path is not None:
        raise SpecpolicyError("--config-path: the shipped configurations stay; add your own by --config-dir")
    if options.experimental_rerun is not None:
        raise SpecpolicyError("--experimental-rerun reads a pickle, which can run any code: give the settings instead")
    given = {
        "--run": options.run,
        "--multirun": options.multirun,
        "--cfg": options.cfg,
        "--info": options.info,
        "--shell-completion": options.shell_completion,
    }
    chosen = [name for name, value in given.items() if value]
    if len(chosen) > 1:
        raise SpecpolicyError(f"{' and '.join(chosen)} exclude each other")
    for name in ("resolve", "package"):
        if getattr(options, name) and not options.cfg:
            raise SpecpolicyError(f"--{name} goes with --cfg")
    return options


def _with_values(arguments: Sequence[str]) -> list[str]:
    """Write out the values of switches that stand alone: `--cfg` is short for `--cfg job`."""
    given = []
    for argument, behind in zip(arguments, [*arguments[1:], ""], strict=False):
        given.append(argument)
        values, alone = ALONE.get(argument, ((behind,), ""))
        if behind not in values:
            given.append(alone)
    return given
