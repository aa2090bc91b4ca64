"""Writes files so that a killed process never leaves a half-written one, and a full disk gives a one-line error."""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from specpolicy.errors import SpecpolicyError

# Messages of libraries that write files without raising an OSError: Rust's (safetensors), HDF5's.
NUMBERED = re.compile(r"\(os error (\d+)\)|errno = (\d+)")
UNNUMBERED = ("PytorchStreamWriter", "inline_container", "file write failed")


def cache_directory() -> Path:
    """Return the directory for files that can be fetched or made again; it may not exist yet.

    It is SPECPOLICY_CACHE, or `specpolicy` in the user's cache directory.
    """
    if own := os.environ.get("SPECPOLICY_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "specpolicy"


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` if the block succeeds, else remove it.

    The temporary name keeps the suffix of `path`, because many writers choose the format by it.

    Raises:
        SpecpolicyError: the disk is full, the place cannot be written to (see `writing`).
    """
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o666 & ~_umask())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def temporary_name(name: str) -> str:
    """Return the pattern of the names that `atomic_path` uses for `name`, which may itself be a pattern."""
    path = Path(name)
    return str(path.with_name(f".{path.stem}-{'?' * 8}{path.suffix}"))


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` atomically, in UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turn an error of the block into one line if it means that `path` cannot be written.

    Raises:
        SpecpolicyError: a full disk, a place without write permission, a failing device.
    """
    try:
        yield
    except Exception as error:
        reason = None if isinstance(error, SpecpolicyError) else failure_to_write(error)
        if reason is None:
            raise
        raise SpecpolicyError(f"{path} cannot be written: {reason}") from error


def failure_to_write(error: BaseException) -> str | None:
    """Return the operating system's reason against writing a file, None if the error and its causes are of another
    kind.

    Libraries wrap the reason: torch raises RuntimeError while it handles the OSError, safetensors and HDF5 put it into
    words.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno is not None:
            return os.strerror(seen.errno)
        if found := NUMBERED.search(str(seen)):
            return os.strerror(int(found[1] or found[2]))
        seen = seen.__cause__ or seen.__context__
    if any(word in str(error) for word in UNNUMBERED):
        return "the disk may be full"
    return None


def _umask() -> int:
    """Return the process's file mode mask, which `mkstemp` ignores."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
