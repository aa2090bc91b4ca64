"""Output directories: one run at a time writes into one, and only our own files are deleted there.

A run claims its output before its work begins. It makes the directory, writes a small file into it to prove that it
can, and locks this file. The operating system releases the lock when the process ends in any way, so a killed run does
not block the next one.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shlex
import socket
import stat
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from specpolicy.errors import SpecpolicyError
from specpolicy.files import temporary_name, writing

try:
    import fcntl
except ImportError:  # Windows: the file says whose the output is, but nothing enforces it
    fcntl = None  # type: ignore[assignment]

LOCK = ".specpolicy.lock"
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
SHOWN = 60  # characters of a value in a message


class InUse(SpecpolicyError):
    """Another run holds the output."""


@contextlib.contextmanager
def claim(directory: str | Path, verb: str, several: bool = False) -> Iterator[Path]:
    """Hold `directory`, made if missing, as the output of this run until the block ends.

    New directories that are still empty in the end, as after a refused run, are removed.

    `several`: the run shares its work out among several processes, and this is the one of them that owns the output.

    Raises:
        SpecpolicyError: another run holds it, it cannot be written to, or several processes were started as one run.
    """
    directory = Path(directory)
    if directory.exists() and not directory.is_dir():
        raise SpecpolicyError(f"{directory} is a file: name a directory")
    if directory.is_symlink() and not directory.exists():
        raise SpecpolicyError(f"{directory} is a link that leads nowhere: mend it, or name another directory")
    place = Path(os.path.realpath(directory))
    if place in (Path(place.anchor), Path(os.path.realpath(Path.home()))):
        raise SpecpolicyError(f"{directory} is a directory of the whole system or of all you have: name one below it")
    if not several:
        refuse_several_processes(verb)
    with _claim(directory, directory / LOCK, verb, directory):
        yield directory


@contextlib.contextmanager
def claim_path(path: str | Path, verb: str) -> Iterator[Path]:
    """Claim an output that appears when it is complete, a file or a directory: its place is held."""
    path = Path(path)
    if path.name in ("", ".."):
        raise SpecpolicyError(f"{path} names no file: give one")
    refuse_several_processes(verb)
    with _claim(path.parent, path.with_name(f".{path.name}{LOCK}"), verb, path):
        yield path


def remove(directory: Path, names: Iterable[str]) -> None:
    """Delete the files that match `names`, names or patterns below `directory`, in their order. Links are removed,
    their targets are not. Directories stay, except those that this has emptied."""
    for path in matching(directory, names):
        if not path.is_symlink() and path.is_dir():
            raise SpecpolicyError(f"{path} is a directory where a file was expected: choose another output")
    for name in names:
        for path in matching(directory, [name]):
            path.unlink(missing_ok=True)
            if path.parent != directory:
                with contextlib.suppress(OSError):
                    path.parent.rmdir()


def matching(directory: Path, names: Iterable[str]) -> list[Path]:
    """Return the existing files for `names`, names or patterns, without following links to other directories."""
    found = (path for name in names for path in sorted(directory.glob(name)) or [directory / name])
    return [path for path in found if _there(path) and not _beyond_a_link(directory, path)]


def remove_temporary(directory: Path, names: Iterable[str]) -> None:
    """Delete temporary files of killed runs (see `atomic_path`); only while the output is held."""
    for name in names:
        for path in matching(directory, [temporary_name(name)]):
            if stat.S_ISREG(path.lstat().st_mode):
                path.unlink(missing_ok=True)


def refuse_several_processes(verb: str) -> None:
    """Refuse a run that a launcher such as torchrun has started several times, because each process would do all of
    it."""
    given = {name: os.environ[name] for name in ("WORLD_SIZE", "RANK") if name in os.environ}
    if _number(given.get("WORLD_SIZE")) > 1 or _number(given.get("RANK")) > 0:
        raise SpecpolicyError(
            f"{' '.join(f'{name}={value}' for name, value in given.items())}: specpolicy {verb} is one process, and a "
            "launcher such as torchrun has started several: start it by itself, or unset these variables"
        )


def default_name(path: str | Path) -> str:
    """Return a name for outputs made from `path` (a path or an address); different paths get different names."""
    text = str(path)
    resolved = Path(os.path.realpath(path))  # Path.resolve raises for circular links
    known = text if "://" in text or not resolved.exists() else str(resolved)
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", known.rstrip("/").rpartition("/")[2]).strip("._") or "policy"
    return f"{name}-{hashlib.sha256(known.encode()).hexdigest()[:8]}"


def run_name(directory: Path) -> str:
    """Return the name of a run that writes to a directory; `.` has none of its own."""
    return Path(os.path.abspath(directory)).name


def file_name(label: str) -> str:
    """Return a label as part of a file's name; different labels get different names."""
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", label)
    return plain if plain == label else f"{plain}-{hashlib.sha256(label.encode()).hexdigest()[:8]}"


def first_difference(
    found: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = ""
) -> tuple[str, str, str] | None:
    """Return (dotted name, value found, value wanted) of the first setting that differs, None if all are the same."""
    for key in [*wanted, *(key for key in found if key not in wanted)]:
        old, new = found.get(key), wanted.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            if deeper := first_difference(old, new, f"{prefix}{key}."):
                return deeper
        elif old != new:
            return f"{prefix}{key}", _shown(old), _shown(new)
    return None


@contextlib.contextmanager
def _claim(directory: Path, lock: Path, verb: str, output: Path) -> Iterator[None]:
    made = []
    try:
        with writing(output):
            for path in reversed([directory, *directory.parents]):
                if not path.exists():
                    path.mkdir(exist_ok=True)
                    made.append(path)
            handle = _lock(lock, verb, output)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                lock.unlink()  # while it is held: a run that has opened it meanwhile sees that it is gone
            os.close(handle)
    finally:
        for path in reversed(made):
            with contextlib.suppress(OSError):
                path.rmdir()


def _lock(lock: Path, verb: str, output: Path) -> int:
    """Return the open, locked file, which says whose the output is."""
    about = {"verb": verb, "process": os.getpid(), "host": socket.gethostname(), "since": _now()}
    while True:
        handle, ours = os.open(lock, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666), False
        try:
            _lock_now(handle, output)
            ours = _same_file(handle, lock)  # otherwise its holder has just removed it
            if ours:
                os.ftruncate(handle, 0)
                os.write(handle, (json.dumps({**about, "command": shlex.join(sys.argv)}) + "\n").encode())
                os.fsync(handle)
                return handle
        except BaseException:
            if ours:
                lock.unlink(missing_ok=True)
            os.close(handle)
            raise
        os.close(handle)


def _lock_now(handle: int, output: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InUse(
            f"{output} is in use by {_holder(handle)}: wait until it has ended, or choose another output"
        ) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        print(f"{output}: this file system has no locks; start no second run with this output", file=sys.stderr)


def _holder(handle: int) -> str:
    try:
        about = json.loads(os.read(handle, 65536))
        return f"specpolicy {about['verb']} (process {about['process']} on {about['host']} since {about['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another run"


def _same_file(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False


def _there(path: Path) -> bool:
    return path.is_symlink() or path.exists()


def _beyond_a_link(directory: Path, path: Path) -> bool:
    between = path.parent
    while between != directory and between != between.parent:
        if between.is_symlink():
            return True
        between = between.parent
    return False


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.strip().isdecimal() else 0


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")
