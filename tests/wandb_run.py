"""Reads back what Weights & Biases keeps of an offline run, so that a test sees what a user would see on its pages."""

import json
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path

from wandb.proto import wandb_internal_pb2

BLOCK, FILE_HEADER, RECORD_HEADER = 32 * 1024, 7, 7
FULL, LAST = 1, 4


@dataclass
class Artifact:
    """What would be sent as an artifact: its type, metadata, aliases, and {name in it: content}."""

    kind: str
    metadata: dict
    aliases: list
    files: dict


@dataclass
class Run:
    """Config, summary, the logged rows, the names of the saved files, and the artifacts by name."""

    config: dict = field(default_factory=dict)
    summary: dict = field(default_factory=dict)
    rows: list = field(default_factory=list)
    files: list = field(default_factory=list)
    artifacts: dict = field(default_factory=dict)
    name: str = ""
    ended: bool = False

    def logged(self, key):
        """The last value logged under a key."""
        return [row[key] for row in self.rows if key in row][-1]


def read_run(directory: Path, patience: float = 60.0) -> Run:
    """The run of a directory `offline-run-*`. Another process writes it, which may end a moment after the run does."""
    (path,) = directory.glob("*.wandb")
    deadline = time.monotonic() + patience
    while not (run := parse(path.read_bytes())).ended:
        assert time.monotonic() < deadline, f"{path} has no end"
        time.sleep(0.1)
    return run


def parse(log: bytes) -> Run:
    """The run of a log file, as far as it has been written."""
    run = Run()
    for content in records(log):
        record = wandb_internal_pb2.Record.FromString(content)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run.name = record.run.display_name or run.name
            run.config |= values(record.run.config.update)
        elif kind == "history":
            run.rows.append(values(record.history.item))
        elif kind == "summary":
            run.summary |= values(record.summary.update)
        elif kind == "files":
            run.files += [file.path for file in record.files.files]
        elif kind == "artifact":
            run.artifacts[record.artifact.name] = artifact(record.artifact)
        elif kind == "exit":
            run.ended = True
    return run


def artifact(record):
    """An artifact with the content of its files, which W&B keeps until it is sent."""
    files = {entry.path: Path(entry.local_path).read_bytes() for entry in record.manifest.contents}
    return Artifact(record.type, json.loads(record.metadata or "{}"), list(record.aliases), files)


def values(items):
    """{key: value} of protobuf items; a nested key is joined by slashes."""
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def records(content: bytes):
    """The records of a log in LevelDB's format: blocks of 32 KiB, in which a record may be cut into several."""
    position, parts = FILE_HEADER, []
    while position + RECORD_HEADER <= len(content):
        left = BLOCK - position % BLOCK
        if left < RECORD_HEADER:  # too short for a header: padding
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        start = position + RECORD_HEADER
        if start + length > len(content):
            return
        parts.append(content[start : start + length])
        position = start + length
        if kind in (FULL, LAST):
            yield b"".join(parts)
            parts = []
