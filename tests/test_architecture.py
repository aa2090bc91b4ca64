"""The rules of the house: a room imports only from rooms below it, and every package is in the wheel."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the ground up. A room may import itself and any room listed before it.
ROOMS = (
    "errors",
    "committed",
    "distributions",
    "parsing",
    "fingerprints",
    "files",
    "outputs",
    "artifacts",
    "processes",
    "machine",
    "cluster",
    "precision",
    "logging",
    "images",
    "wrappers",
    "rates",
    "tasks",
    "tuning",
    "diffusion",
    "conditioning",
    "denoisers",
    "networks",
    "engines",
    "model",
    "samplers",
    "tokens",
    "sampler_names",
    "policy",
    "data",
    "training",
    "control",
    "serving",
    "evaluation",
    "benchmarking",
    "demo",
    "cli",
    "__main__",
    "integrations",  # above all others: nobody imports it
)
# The same inside the policy room.
POLICY = (
    "rotations",
    "normaliser",
    "config",
    "checkpoints",
    "draft_models",
    "observations",
    "frame_cache",
    "encoding",
    "prediction",
    "continuing",
    "drawing",
    "sampler",
    "runner",
    "base",
    "networks",
    "diffusion_policy",
    "token_policy",
    "histories",
    "calibrating",
    "loading",
)
# What a policy is made of: whoever only asks one for chunks does not know it.
INSIDES = {"diffusion", "denoisers", "networks", "model", "samplers", "sampler_names", "policy"}
# What else a room must not know, though it lies below.
STRANGERS = {
    "networks": {"diffusion", "tasks"},
    "tokens": {"diffusion", "networks", "tasks"},
    "samplers": {"networks", "tasks"},
    "engines": {"diffusion", "networks", "tokens", "tasks"},
    "model": {"diffusion", "networks", "tokens", "tasks"},
    "training": {"tasks", "policy.loading"},
    "benchmarking": {"tasks", "wrappers", "data", "training", "control"},
    "control": INSIDES | {"training"},
    "serving": INSIDES | {"training", "data"},
}
SOURCES = sorted((ROOT / "specpolicy").rglob("*.py"))


def imports(path):
    """Names of the modules that a file imports, wherever in the file, but for those that only types need."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def violations(room, modules):
    """The imported modules that `room` must not import."""
    strangers = STRANGERS.get(room, set())
    allowed = set(ROOMS[: ROOMS.index(room) + 1]) - strangers
    used = {tuple(name.split(".")[1:3]) for name in modules if name.startswith("specpolicy.")}
    rooms = {names[0] for names in used}
    return {name for name in rooms if name in ROOMS and name not in allowed} | {
        ".".join(names) for names in used if ".".join(names) in strangers
    }


def violations_inside(module, modules):
    """The modules of the policy room that one of them must not import."""
    above = POLICY[POLICY.index(module) + 1 :]
    return {name for name in above if f"specpolicy.policy.{name}" in modules}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_from_rooms_below(path):
    parts = path.relative_to(ROOT / "specpolicy").with_suffix("").parts
    if parts == ("__init__",):
        return
    assert parts[0] in ROOMS, f"{parts[0]} is a new room: give it a place in ROOMS"
    assert not violations(parts[0], imports(path))
    if parts[0] == "policy" and parts[1] != "__init__":
        assert parts[1] in POLICY, f"{parts[1]} is new: give it a place in POLICY"
        assert not violations_inside(parts[1], set(imports(path)))


def test_the_check_sees_violations():
    assert violations("samplers", ["torch", "specpolicy.networks.unet"]) == {"networks"}
    assert violations("diffusion", ["specpolicy.policy"]) == {"policy"}
    assert violations("control", ["specpolicy.policy.base", "specpolicy.errors"]) == {"policy"}
    assert violations("training", ["specpolicy.policy.loading", "specpolicy.policy"]) == {"policy.loading"}
    assert violations_inside("config", {"specpolicy.policy.base", "specpolicy.policy.rotations"}) == {"base"}


def test_the_environments_stand_alone():
    for path in (ROOT / "envs").rglob("*.py"):
        assert not [name for name in imports(path) if name.split(".")[0] == "specpolicy"], path


def test_every_package_is_in_the_wheel():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in SOURCES if path.name == "__init__.py"}
    assert found | {"specpolicy_envs", "specpolicy_configs"} == set(listed)
    assert not [path for path in SOURCES if not (path.parent / "__init__.py").exists()]
