"""Optional packages: the extra that brings each, the check before a verb begins, and errors as one line."""

import importlib.util
import os
import sys

from specpolicy.errors import SpecpolicyError

# {package as imported: extra of pyproject.toml}
EXTRAS = {
    "hydra": "cli",
    "omegaconf": "cli",
    "rich": "cli",
    "gymnasium": "sim",
    "mujoco": "sim",
    "robosuite": "sim",
    "h5py": "train",
    "matplotlib": "report",
    "jinja2": "report",
    "imageio": "report",
    "wandb": "wandb",
    "websockets": "serve",
    "msgpack": "serve",
    "prometheus_client": "serve",
    "openvino": "openvino",
    "numba": "openvino",
    "pyarrow": "data",
    "zarr": "data",
    "metaworld": "metaworld",
    "torchvision": "torchvision",
    "gym_pusht": "pusht",
    "gym_aloha": "aloha",
    "ray": "ray",
}
COMMAND_LINE = ("hydra", "omegaconf", "rich")
# Packages that a verb needs under all settings; others are noticed when they are imported. An evaluation must not play
# for an hour and then find that it cannot draw its report.
NEEDS = {
    "collect": ("gymnasium", "h5py"),
    "evaluate": ("gymnasium", "matplotlib", "jinja2", "imageio"),
    "merge": ("gymnasium", "matplotlib", "jinja2"),
    "replay": ("gymnasium", "h5py"),
    "control": ("gymnasium",),
    "rollout": ("gymnasium",),
    "serve": ("websockets", "msgpack", "prometheus_client"),
}


def check_installed(packages: tuple[str, ...]) -> None:
    """Raise an error unless all packages are installed; nothing is imported.

    Raises:
        SpecpolicyError: a package is missing; the message has the command that installs it.
    """
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise SpecpolicyError(refusal(missing))


def refusal(missing: list[str]) -> str:
    """Return the error line for packages that are not installed."""
    extras = dict.fromkeys(EXTRAS[package] for package in missing if package in EXTRAS)
    others = [package for package in missing if package not in EXTRAS]
    targets = [f"'specpolicy[{','.join(extras)}]'"] * bool(extras) + others
    kind, verb = ("package", "is") if len(missing) == 1 else ("packages", "are")
    line = f"the {kind} {', '.join(missing)} {verb} not installed: pip install {' '.join(targets)}"
    if "robosuite" in missing and sys.version_info >= (3, 13):  # if the extra leaves it out
        line += " under Python 3.11 or 3.12, which robosuite needs"
    return line


def error_line(error: Exception) -> str | None:
    """Return one line for an error that the user can fix; None for a defect of ours, whose traceback should be seen."""
    if isinstance(error, SpecpolicyError):
        return " ".join(str(error).split())
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        if package in ("specpolicy", "specpolicy_envs", "specpolicy_configs"):
            return None
        return refusal([package])
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.strerror}: {os.fsdecode(error.filename)}"
    if isinstance(error, OSError) and error.errno is not None:
        return error.strerror or os.strerror(error.errno)
    return None
