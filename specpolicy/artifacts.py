"""Policies stored by Weights & Biases: `wandb:entity/project/name:version` in place of a checkpoint's path.

An artifact is a checkpoint directory under a name. Its numbered versions never change; its aliases (`latest`, `best`)
move from one version to another. It is downloaded once into a cache, under its digest. A cached version is used without
the network. The downloaded files are read like any other file.
"""

import os
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specpolicy.errors import SpecpolicyError
from specpolicy.files import cache_directory, write_text, writing
from specpolicy.outputs import file_name

PREFIX = "wandb:"
TYPE = "model"  # one of W&B's kinds of artifacts
PROJECT = "specpolicy"  # where neither the name nor WANDB_PROJECT gives one
FORM = re.compile(r"wandb:(?:(?:([^/:]+)/)?([^/:]+)/)?([^/:]+)(?::([^/:]+))?")
FIXED = re.compile(r"v\d+")  # a version; anything else is an alias
DIGEST = re.compile(r"[A-Za-z0-9_=-]+")
OFFLINE = ("offline", "disabled", "dryrun")  # values of WANDB_MODE


@dataclass(frozen=True)
class Artifact:
    """A policy in the cache.

    Attributes:
        name: "entity/project/name:v3", whose contents never change.
        digest: W&B's digest of its files.
        directory: of its files.
    """

    name: str
    digest: str
    directory: Path

    @property
    def reference(self) -> str:
        """Text to use in place of a path."""
        return f"{PREFIX}{self.name}"


def is_reference(path: str | Path) -> bool:
    """Whether a path names an artifact."""
    return str(path).startswith(PREFIX)


def local_path(path: str | Path) -> Path:
    """Return the local path of a policy: an artifact is fetched, any other path stays.

    Raises:
        SpecpolicyError: see `fetch`.
    """
    return fetch(str(path)).directory if is_reference(path) else Path(path)


def fetch(reference: str) -> Artifact:
    """Return the artifact of that name, downloaded if it is not in the cache.

    Args:
        reference: "wandb:entity/project/name:version". The version may be an alias; without one it is `latest`. Entity
            and project may be left out: then they are W&B's defaults on this machine, and "specpolicy" for the project.

    Raises:
        SpecpolicyError: no such artifact, one that this user may not read, one that is not a policy; Weights & Biases
            cannot be reached, or must not be (WANDB_MODE) for a version that is not in the cache.
    """
    found = FORM.fullmatch(reference)
    if found is None:
        raise SpecpolicyError(f"{reference} names no artifact: write wandb:entity/project/name:version")
    entity, project, name, version = found.groups()
    if entity and project and version and FIXED.fullmatch(version) and (kept := _kept(reference)):
        return kept
    mode = os.environ.get("WANDB_MODE")
    if mode in OFFLINE:
        raise SpecpolicyError(
            f"{reference} is not in {cache_directory()}, and WANDB_MODE={mode} keeps it from being asked for: give a "
            "version downloaded before, in full (wandb:entity/project/name:v3)"
        )
    short = "/".join(part for part in (entity, project, name) if part)
    artifact = _ask(reference, f"{short}:{version or 'latest'}")
    # Read the digest now: once the list of its files is there, W&B computes it from that.
    digest, full = str(artifact.digest), f"{artifact.entity}/{artifact.project}/{artifact.name.partition(':')[0]}"
    if not DIGEST.fullmatch(digest):  # it becomes the name of a directory
        raise SpecpolicyError(f"{reference} has the digest {digest!r}: it is none")
    fixed = Artifact(f"{full}:{artifact.version}", digest, _place(digest))
    if not fixed.directory.is_dir():
        _download(reference, artifact, fixed)
    write_text(_entry(fixed.reference), f"{digest}\n")
    return fixed


def default_project() -> str:
    """W&B's default project."""
    return os.environ.get("WANDB_PROJECT") or PROJECT


def one_reason(error: Exception, what: str = "artifact") -> str:
    """Return W&B's error and the remedy in one line; `what` names the requested object."""
    said = " ".join((str(error) or type(error).__name__).split()).rstrip(".")
    said = said if len(said) <= 200 else f"{said[:200]}..."
    if "API key" in said or "wandb login" in said:
        return "Weights & Biases knows no user here: run `wandb login`, or set WANDB_API_KEY"
    if any(word in said for word in ("not found", "permission", "403", "404")):
        return f"Weights & Biases has no such {what}, or none that this user may use ({said})"
    return f"Weights & Biases cannot be asked ({said})"


def _ask(reference: str, name: str) -> Any:
    """Return W&B's own object of an artifact, a policy that can be downloaded."""
    try:
        import wandb
    except ModuleNotFoundError as error:
        raise SpecpolicyError(f"{reference} needs the package wandb: pip install 'specpolicy[wandb]'") from error
    try:
        artifact = wandb.Api(overrides={"project": default_project()}).artifact(name)
    except Exception as error:  # of many kinds: W&B's, those of its transport, ValueError
        raise SpecpolicyError(f"{reference}: {one_reason(error)}") from error
    if artifact.type != TYPE:
        raise SpecpolicyError(f"{reference} is of the type {artifact.type}: a policy's is {TYPE}")
    return artifact


def _download(reference: str, artifact: Any, fixed: Artifact) -> None:
    """Download an artifact's files into its place, where they appear all at once."""
    place = fixed.directory
    try:
        linked = [name for name, entry in artifact.manifest.entries.items() if entry.ref is not None]
    except Exception as error:
        raise SpecpolicyError(f"{reference}: {one_reason(error)}") from error
    if linked:
        raise SpecpolicyError(f"{reference} does not hold {linked[0]}, it refers to another place: log the file itself")
    print(f"downloading {fixed.name}, {artifact.size / 1e6:.1f} MB, into {place}", file=sys.stderr)
    with writing(place):
        place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".download-", ignore_cleanup_errors=True) as temporary:
        part = Path(temporary) / "files"
        try:
            with writing(place):
                artifact.download(root=str(part))
        except SpecpolicyError:
            raise
        except Exception as error:
            raise SpecpolicyError(f"{reference}: {one_reason(error)}") from error
        if not part.is_dir():
            raise SpecpolicyError(f"{reference} holds no files")
        try:
            # Some versions of W&B's package mix up files that they download side by side, and W&B trusts its own cache.
            artifact.verify(str(part))
        except (ValueError, OSError) as error:
            raise SpecpolicyError(f"{reference}: what came is not what was logged ({error}): try again") from error
        try:
            part.rename(place)
        except OSError:
            if not place.is_dir():  # otherwise another process was faster
                raise


def _kept(reference: str) -> Artifact | None:
    """Return a version that was downloaded before, None without one."""
    try:
        digest = _entry(reference).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    place = _place(digest)
    return Artifact(reference.removeprefix(PREFIX), digest, place) if digest and place.is_dir() else None


def _entry(reference: str) -> Path:
    """Path of the file that holds the digest of a version."""
    return cache_directory() / "names" / file_name(reference)


def _place(digest: str) -> Path:
    return cache_directory() / "artifacts" / digest
