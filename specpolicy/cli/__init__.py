"""The command line: `specpolicy <verb> key=value ...`, with one module and one yaml file per verb."""

import os
import sys
from collections.abc import Sequence

from specpolicy import __version__
from specpolicy.cli.extras import COMMAND_LINE, check_installed, error_line
from specpolicy.cli.printing import text_is_wanted
from specpolicy.errors import SpecpolicyError

# {verb: its line in `specpolicy --help`}. A verb is a module specpolicy/cli/<verb>.py with a function
# `run(config)`. The module's docstring is the verb's help; its keys are in configs/<verb>.yaml.
VERBS = {
    "collect": "record demonstrations of a task's scripted expert",
    "train": "train a policy on demonstrations",
    "calibrate": "make a policy's exact sampling faster on this machine",
    "train_drafter": "train draft models for the samplers that take one",
    "evaluate": "measure a policy's success and time with several samplers",
    "merge": "join the shards of an evaluation that was played in parts",
    "replay": "play recorded actions again, and say where the physics departs",
    "benchmark": "measure the cost of a chunk for several samplers",
    "control": "run a policy live on a simulated or a real robot; report its timing",
    "serve": "serve a policy to robots and simulators, in openpi's protocol",
    "rollout": "show one episode of a policy: a video or a window",
    "convert": "convert a checkpoint of diffusion_policy, LeRobot or robomimic",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code: 0 done, 2 bad input, 130 interrupted.

    Bad input is reported in one line on stderr; `SPECPOLICY_DEBUG=1` shows the traceback instead.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    verb = arguments[0] if arguments else "--help"
    try:
        with text_is_wanted():
            if verb == "--version":
                print(f"specpolicy {__version__}")
                return 0
            check_installed(COMMAND_LINE)
            if verb in ("-h", "--help", "help"):
                print(_overview())
            else:
                _run(verb, arguments[1:])
    except KeyboardInterrupt:
        print(f"specpolicy {verb}: interrupted", file=sys.stderr)
        return 130
    except (SpecpolicyError, ModuleNotFoundError, OSError) as error:
        line = error_line(error)
        if line is None or os.environ.get("SPECPOLICY_DEBUG", "0") not in ("", "0"):
            raise
        prefix = f"specpolicy {verb}" if verb in VERBS else "specpolicy"
        print(f"{prefix}: {line}", file=sys.stderr)
        return 2
    return 0


def _run(verb: str, arguments: list[str]) -> None:
    """Run a verb, print its help, or complete its command line, as the arguments ask."""
    # Imported here, so that `specpolicy --help` answers at once and without Hydra.
    from specpolicy.cli.application import start
    from specpolicy.cli.completion import SWITCHES, complete
    from specpolicy.cli.help import verb_help
    from specpolicy.cli.options import parse_options
    from specpolicy.parsing import closest

    if verb in SWITCHES:
        complete(parse_options([verb, *arguments]).overrides)
        return
    if verb.startswith("-"):
        raise SpecpolicyError(f"{verb}: name the verb first, specpolicy <verb> {verb}")
    if verb not in VERBS:
        raise SpecpolicyError(f"unknown verb '{verb}'{closest(verb, VERBS)} (specpolicy --help lists them)")
    options = parse_options(arguments)
    if options.help:
        print(verb_help(verb, options.config_dir))
    elif options.shell_completion:
        complete(options.overrides)
    else:
        start(verb, options)


def _overview() -> str:
    """Return the text of `specpolicy --help`."""
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:<{width}}  {line}" for verb, line in VERBS.items())
    return (
        "Diffusion policies that answer in time.\n\n"
        "Usage: specpolicy <verb> key=value ...\n\n"
        f"Verbs:\n{verbs}\n\n"
        "specpolicy <verb> --help explains a verb, its keys and their defaults.\n"
        'Completion for this shell: eval "$(specpolicy -sc install=bash)"\n'
        "Example: specpolicy collect task=lift episodes=10"
    )
