"""Stands in for Weights & Biases' servers: artifacts in memory behind the calls of its API and of its runs."""

import hashlib
from pathlib import Path
from types import SimpleNamespace

import wandb


class Server:
    """Artifacts by name, version by version, and what was asked of it."""

    def __init__(self, entity="team"):
        self.entity, self.versions, self.aliases = entity, {}, {}
        self.downloads, self.used, self.asked = [], [], []
        self.refuses = None  # what each question is answered with

    def add(self, project, name, files, aliases=("latest",), type="model", metadata=None, references=()):
        """A new version; {name in it: content}."""
        known = self.versions.setdefault((project, name), [])
        known.append(Logged(self, project, name, len(known), type, files, metadata or {}, references))
        for alias in ("latest", *aliases):
            self.aliases[project, name, alias] = known[-1]
        return known[-1]

    def find(self, full, default_project):
        """The version of "entity/project/name:alias", whose first parts may be missing."""
        self.asked.append(full)
        if self.refuses is not None:
            raise self.refuses
        path, _, version = full.partition(":")
        *where, name = path.split("/")
        entity, project = [self.entity, default_project][: 2 - len(where)] + where
        known = self.versions.get((project, name), [])
        found = {f"v{one.number}": one for one in known}.get(version) or self.aliases.get((project, name, version))
        if entity != self.entity or found is None:
            raise wandb.errors.CommError(f"artifact membership '{name}:{version}' not found in '{entity}/{project}'")
        return found

    def api(self, overrides=None):
        """What wandb.Api() returns."""
        project = (overrides or {}).get("project", "uncategorized")

        def exists(name, type=None):
            if self.refuses is not None:
                raise self.refuses
            try:
                return self.find(name, project).type == type
            except wandb.errors.CommError:
                return False

        return SimpleNamespace(artifact=lambda name, type=None: self.find(name, project), artifact_exists=exists)

    def init(self, **options):
        """What wandb.init() returns: a run that is online."""
        return FakeRun(self, options)

    def install(self, monkeypatch):
        """In the place of the real ones, for a user who is online."""
        monkeypatch.delenv("WANDB_MODE", raising=False)
        monkeypatch.setattr(wandb, "Api", self.api)
        monkeypatch.setattr(wandb, "init", self.init)
        return self


class Logged:
    """An artifact that the server has, as wandb.Artifact shows one."""

    def __init__(self, server, project, name, number, type, files, metadata, references):
        self.server, self.entity, self.project, self.number = server, server.entity, project, number
        self.name, self.version, self.type, self.metadata = f"{name}:v{number}", f"v{number}", type, metadata
        self.files, self.size = files, sum(map(len, files.values()))
        content = b"".join(key.encode() + value for key, value in sorted(files.items()))
        self.digest = hashlib.md5(content).hexdigest()
        entries = {key: SimpleNamespace(ref="s3://bucket/x" if key in references else None) for key in files}
        self.manifest = SimpleNamespace(entries=entries)
        self.fails_after = None  # files until the connection is lost

    def download(self, root):
        self.server.downloads.append(f"{self.name}")
        for number, (key, content) in enumerate(self.files.items()):
            if number == self.fails_after:
                raise ConnectionError("connection reset by peer")
            path = Path(root) / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return root

    def verify(self, root):
        for key, content in self.files.items():
            if (Path(root) / key).read_bytes() != content:
                raise ValueError(f"Digest mismatch for file: {key}")

    def wait(self):
        return self


class FakeRun:
    """A run that is online."""

    offline = disabled = False
    starting_step = 0

    def __init__(self, server, options):
        self.server, self.options = server, options
        self.entity, self.project, self.id = server.entity, options["project"], options["id"]
        self.summary, self.rows, self.logged = {}, [], []

    def define_metric(self, *arguments, **options):
        pass

    def log(self, values, step, commit):
        self.rows.append(values)

    def save(self, *arguments, **options):
        pass

    def finish(self):
        pass

    def use_artifact(self, name, type=None):
        self.server.used.append(self.server.find(name, self.project).name)

    def log_artifact(self, artifact, aliases):
        files = {key: Path(entry.local_path).read_bytes() for key, entry in artifact.manifest.entries.items()}
        return self.server.add(self.project, artifact.name, files, aliases, artifact.type, artifact.metadata)
