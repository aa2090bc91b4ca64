"""`wandb:...` in the place of a path: fetched once, or refused in a line.

Against a stand-in for W&B's package, and W&B's package against a stand-in for its servers.
"""

import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
import wandb
from fake_wandb import Server
from wandb_server import WRITTEN_FOR, serving

import specpolicy
from specpolicy.artifacts import fetch, is_reference
from specpolicy.errors import SpecpolicyError
from specpolicy.files import cache_directory
from specpolicy.policy import DiffusionPolicy


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("SPECPOLICY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staged"))
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return Server().install(monkeypatch)


@pytest.fixture
def checkpoint(small_policy, tmp_path):
    """{name: content} of a checkpoint's files."""
    place = small_policy.save(tmp_path / "saved")
    return {path.name: path.read_bytes() for path in place.iterdir()}


def cached():
    """What the cache holds, by name."""
    return sorted(path.name for path in cache_directory().rglob("*") if path.is_file())


def test_a_policy_is_loaded_from_an_artifact_that_is_fetched_once(server, checkpoint, small_policy):
    server.add("lifting", "lift-unet", checkpoint)
    policy = specpolicy.load_policy("wandb:team/lifting/lift-unet:v0")
    assert policy.fingerprint == small_policy.fingerprint
    assert specpolicy.load_policy("wandb:team/lifting/lift-unet:v0").fingerprint == small_policy.fingerprint
    assert server.downloads == ["lift-unet:v0"] and len(server.asked) == 1  # a version never changes
    specpolicy.load_policy("wandb:team/lifting/lift-unet:latest")
    assert server.downloads == ["lift-unet:v0"] and len(server.asked) == 2  # an alias does


def test_an_alias_is_what_it_is_now(server, checkpoint, policy_config, tmp_path):
    server.add("lifting", "lift-unet", checkpoint, aliases=["best"])
    assert fetch("wandb:lifting/lift-unet").name == "team/lifting/lift-unet:v0"
    torch.manual_seed(9)
    other = DiffusionPolicy.from_config(policy_config)
    files = {path.name: path.read_bytes() for path in other.save(tmp_path / "other").iterdir()}
    server.add("lifting", "lift-unet", files)
    found = fetch("wandb:lifting/lift-unet")
    assert found.name == "team/lifting/lift-unet:v1" and found.reference == "wandb:team/lifting/lift-unet:v1"
    assert found.directory.name == found.digest
    assert specpolicy.load_policy(found.directory).fingerprint == other.fingerprint
    assert fetch("wandb:lifting/lift-unet:best").name == "team/lifting/lift-unet:v0"
    assert server.downloads == ["lift-unet:v0", "lift-unet:v1"]


def test_what_is_left_out_are_the_users_defaults(server, checkpoint, monkeypatch):
    for project in ("specpolicy", "mine"):
        server.add(project, "lift-unet", {**checkpoint, "note": project.encode()})
    assert fetch("wandb:lift-unet:v0").name == "team/specpolicy/lift-unet:v0"
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    assert fetch("wandb:lift-unet:v0").name == "team/mine/lift-unet:v0"


@pytest.mark.parametrize("name", ["wandb:", "wandb:a/b/c/d:v0", "wandb:a//b", "wandb:a:b:c", "wandb:/a", "wandb:a:"])
def test_what_names_no_artifact(server, name):
    assert is_reference(name)
    with pytest.raises(SpecpolicyError, match="wandb:entity/project/name:version"):
        specpolicy.load_policy(name)
    assert server.asked == []


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (wandb.errors.UsageError("No API key configured. Use `wandb login` to log in."), "run `wandb login`"),
        (wandb.errors.CommError("HTTP 403: permission denied"), "none that this user may use .*403"),
        (
            wandb.errors.CommError("service process is busy\nand more"),
            "cannot be asked .service process is busy and more",
        ),
        (TimeoutError(), "cannot be asked .TimeoutError"),
    ],
)
def test_a_refusal_is_one_line(server, checkpoint, error, words):
    server.add("lifting", "lift-unet", checkpoint)
    server.refuses = error
    with pytest.raises(SpecpolicyError, match=words) as caught:
        fetch("wandb:team/lifting/lift-unet:v0")
    assert "\n" not in str(caught.value) and str(caught.value).startswith("wandb:team/lifting/lift-unet:v0")
    assert cached() == []


def test_unknown_artifacts_and_those_that_are_no_policies(server, checkpoint):
    server.add("lifting", "demonstrations", {"a": b"1"}, type="dataset")
    server.add("lifting", "elsewhere", checkpoint, references=["model.safetensors"])
    server.add("lifting", "empty", {})
    server.add("lifting", "odd", checkpoint).digest = "../../x"
    for name, words in (
        ("lift-unet:v7", "no such artifact, or none that this user may use"),
        ("demonstrations:v0", "is of the type dataset: a policy's is model"),
        ("elsewhere:v0", "does not hold model.safetensors, it refers to another place"),
        ("empty:v0", "holds no files"),
        ("odd:v0", "has the digest '../../x': it is none"),
    ):
        with pytest.raises(SpecpolicyError, match=words):
            fetch(f"wandb:team/lifting/{name}")
    assert cached() == []


def test_what_it_holds_is_read_with_care(server, checkpoint):
    server.add("lifting", "damaged", {**checkpoint, "model.safetensors": checkpoint["model.safetensors"][:-50]})
    with pytest.raises(SpecpolicyError, match=r"model\.safetensors"):
        specpolicy.load_policy("wandb:team/lifting/damaged:v0")

    class Evil:
        def __reduce__(self):
            return (pytest.fail, ("code of the file was run",))

    server.add("lifting", "pickled", {"latest.ckpt": pickle.dumps(Evil())})
    with pytest.raises(SpecpolicyError, match=r"latest\.ckpt"):
        specpolicy.load_policy("wandb:team/lifting/pickled:v0")


def test_offline_only_what_is_there_is_used(server, checkpoint, monkeypatch):
    server.add("lifting", "lift-unet", checkpoint)
    fetch("wandb:team/lifting/lift-unet:v0")
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert fetch("wandb:team/lifting/lift-unet:v0").directory.is_dir()
    for name in ("team/lifting/lift-unet:latest", "lift-unet:v0", "team/lifting/lift-unet:v1"):
        with pytest.raises(SpecpolicyError, match="WANDB_MODE=offline keeps it from being asked for"):
            fetch(f"wandb:{name}")
    assert len(server.asked) == 1


def test_a_broken_download_leaves_nothing_and_the_next_one_begins_anew(server, checkpoint):
    logged = server.add("lifting", "lift-unet", checkpoint)
    logged.fails_after = 1
    with pytest.raises(SpecpolicyError, match="connection reset by peer"):
        fetch("wandb:team/lifting/lift-unet:v0")
    assert cached() == []
    logged.fails_after = None
    assert sorted(path.name for path in fetch("wandb:team/lifting/lift-unet:v0").directory.iterdir()) == sorted(
        checkpoint
    )


def test_files_that_are_not_what_was_logged_are_refused(server, checkpoint):
    logged = server.add("lifting", "lift-unet", checkpoint)
    download = logged.download

    def mixed_up(root):
        download(root)
        (Path(root) / "config.json").write_bytes(checkpoint["model.safetensors"])

    logged.download = mixed_up
    with pytest.raises(SpecpolicyError, match=r"not what was logged \(Digest mismatch.* config\.json\): try again"):
        fetch("wandb:team/lifting/lift-unet:v0")
    assert cached() == []


def test_two_who_fetch_at_once_both_get_it(server, checkpoint):
    logged = server.add("lifting", "lift-unet", checkpoint)
    meet, download, found = threading.Barrier(2), logged.download, []

    def together(root):
        meet.wait(timeout=60)  # both have seen that it is not there
        return download(root)

    logged.download = together
    threads = [threading.Thread(target=lambda: found.append(fetch("wandb:lifting/lift-unet:v0"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2 and found[0] == found[1] and len(server.downloads) == 2
    assert sorted(path.name for path in found[0].directory.iterdir()) == sorted(checkpoint)
    assert [path.name for path in (cache_directory() / "artifacts").iterdir()] == [found[0].digest]


def test_without_the_package(monkeypatch, tmp_path):
    monkeypatch.setenv("SPECPOLICY_CACHE", str(tmp_path))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(SpecpolicyError, match=r"needs the package wandb: pip install 'specpolicy\[wandb\]'"):
        specpolicy.load_policy("wandb:team/lifting/lift-unet:v0")


REAL = """
import specpolicy, sys
for name in sys.argv[1:]:
    try:
        print(name, specpolicy.load_policy(name).fingerprint)
    except specpolicy.SpecpolicyError as error:
        print("refused", error)
"""


@pytest.mark.skipif(not wandb.__version__.startswith(WRITTEN_FOR), reason=f"the server answers wandb {WRITTEN_FOR}x")
def test_the_package_itself_fetches_what_the_server_has(checkpoint, small_policy, tmp_path):
    """In a process of its own, whose service knows no other server."""
    names = ["wandb:team/p/lift:v1", "wandb:p/lift", "wandb:team/p/lift:v7", "wandb:other"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    environment |= {"HOME": str(tmp_path), "SPECPOLICY_CACHE": str(tmp_path / "cache"), "WANDB_API_KEY": "a" * 40}
    environment |= {"WANDB_ERROR_REPORTING": "false", "OMP_NUM_THREADS": "1"}
    found = []
    for wrong in (["model.safetensors"], []):
        with serving(checkpoint, wrong) as address:
            command, here = [sys.executable, "-c", REAL, *names], {**environment, "WANDB_BASE_URL": address}
            done = subprocess.run(command, env=here, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        found.append(done.stdout.splitlines())
        # W&B's own cache believes what it was sent.
        environment["WANDB_CACHE_DIR"] = str(tmp_path / "another")
    assert all("Digest mismatch for file: model.safetensors" in line for line in found[0][:2])
    assert found[1][:2] == [f"{name} {small_policy.fingerprint}" for name in names[:2]]
    for line, name, place in zip(found[1][2:], ("lift:v7", "other:latest"), ("team/p", "team/specpolicy"), strict=True):
        assert line.startswith("refused wandb:") and f"'{name}' not found in '{place}'" in line
    assert [path.name for path in (tmp_path / "cache" / "names").iterdir()]
