"""Recognises whose checkpoint lies at a path, and converts it to our layout."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from specpolicy.errors import SpecpolicyError
from specpolicy.integrations.foreign import ForeignCheckpoint
from specpolicy.parsing import one_line, read_json, shown

CONFIG = "config.json"
ARCHIVES = (".ckpt", ".pth", ".pt", ".bin")


def read(path: str | Path, trust: bool = False) -> ForeignCheckpoint | None:
    """Read the checkpoint at `path` if it is one of another project; None leaves it to our own loader.

    Accepted: LeRobot's output directory, a checkpoint in it, a `pretrained_model` in that or a file of it; a Diffusion
    Policy `.ckpt` or the output directory around it; a robomimic `.pth`.

    Args:
        path: the file or directory.
        trust: open pickles that need more than these projects write.

    Raises:
        SpecpolicyError: a file that cannot be read, or holds a policy that we cannot run.
    """
    path = Path(path)
    try:
        if path.name in (CONFIG, "model.safetensors") and path.is_file():
            path = path.parent
        if path.is_dir():
            return _read_directory(path, trust)
        return _read_archive(path, trust) if path.is_file() else None
    except SpecpolicyError as error:
        if str(path) in str(error):
            raise
        raise SpecpolicyError(f"{path}: {error}") from None
    except OSError as error:  # a name that is too long, a directory that we may not read
        raise SpecpolicyError(f"{path} cannot be read: {error.strerror}") from None


def _read_directory(path: Path, trust: bool) -> ForeignCheckpoint | None:
    for directory in _places(path):
        config = _json(directory / CONFIG)
        if config is None and directory != path and directory.is_dir():
            config = read_json(directory / CONFIG)  # reports its errors
        if config is None:
            continue
        # Our config has the fields network and chain; LeRobot's the type of its policy, in early versions only shapes.
        if "network" not in config and {"type", "input_features", "input_shapes"} & config.keys():
            from specpolicy.integrations import lerobot

            return lerobot.read(directory, config)
        return None
    latest = path / "checkpoints" / "latest.ckpt"
    if latest.is_file():
        return _read_archive(latest, trust)
    archives = sorted(file for file in path.rglob("*") if file.suffix in ARCHIVES)
    if len(archives) == 1:
        return _read_archive(archives[0], trust)
    if archives:
        raise SpecpolicyError(f"{path} holds {len(archives)} checkpoints: name one of them, such as {archives[-1]}")
    return None


def _places(path: Path) -> Iterator[Path]:
    """Yield directories that may hold a checkpoint. LeRobot's are looked for where ours is not, as their module loads
    the whole of its project."""
    yield path
    from specpolicy.integrations.lerobot.output import trained_by_lerobot

    yield from trained_by_lerobot(path)


def _read_archive(path: Path, trust: bool) -> ForeignCheckpoint:
    from specpolicy.integrations import diffusion_policy, robomimic
    from specpolicy.integrations.unpickling import load

    if path.suffix == ".safetensors":
        raise SpecpolicyError(f"{path} holds weights alone: give the directory that also has its {CONFIG}")
    content = load(path, trust)
    for project in (diffusion_policy, robomimic):
        if isinstance(content, dict) and project.recognises(content):
            try:
                return project.convert(content, path)
            except SpecpolicyError as error:
                raise SpecpolicyError(one_line(error)) from None
            except Exception as error:  # parts of unexpected kinds, sizes that no memory has, endless nesting
                raise SpecpolicyError(f"{path} is not understood ({one_line(_describe(error))})") from error
    names = ", ".join(map(shown, list(content)[:5])) if isinstance(content, dict) else type(content).__name__
    raise SpecpolicyError(
        f"{path} holds {names}: it is no checkpoint of diffusion_policy (cfg, state_dicts) "
        "nor of robomimic (algo_name, model)"
    )


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _json(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; None if there is no such file or it is not an object. Our own loader reports damage."""
    try:
        return read_json(path)
    except SpecpolicyError:
        return None
