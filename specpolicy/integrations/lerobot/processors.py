"""LeRobot's processors (version 0.4 and later): changes to observations before a policy, and to actions after it.

`policy_preprocessor.json` and `policy_postprocessor.json` list steps by their registered names, with their settings.
Each step is applied, or has no effect by its nature or its settings, or is refused by its name. So is a setting that is
not listed here. Users register their own steps, and some of LeRobot's change the meaning of an action.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from specpolicy.errors import SpecpolicyError
from specpolicy.integrations.lerobot.settings import ACTION, Feature, Mode, check_feature_types
from specpolicy.parsing import check_ranges, closest, parse, read_json, shown

BEFORE, AFTER = "policy_preprocessor.json", "policy_postprocessor.json"
EPSILON = 1e-8


@dataclass(frozen=True)
class Rename:
    """Gives observations the names that the policy knows."""

    rename_map: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Normalise:
    """Normalises observations and actions by statistics from a file."""

    features: Mapping[str, Feature]
    norm_map: Mapping[str, Mode]
    eps: float = EPSILON
    normalize_observation_keys: Sequence[str] | None = None
    device: Any = None
    dtype: Literal["float32"] | None = None
    stats: None = None  # these would override those in the file

    def __post_init__(self) -> None:
        check_feature_types(self.norm_map)
        check_ranges(self, eps=(0.0, 1.0))


@dataclass(frozen=True)
class Nothing:
    """A step that adds an axis for a batch of one, or has no effect."""


@dataclass(frozen=True)
class Device:
    """Moves the numbers to a device; a dtype that would round them is refused."""

    device: Any = None
    float_dtype: Literal["float32", "float"] | None = None


@dataclass(frozen=True)
class RelativeActions:
    """Turns actions into offsets from the state. Accepted only if switched off: we have no step that adds the state
    again."""

    enabled: Literal[False] = False
    exclude_joints: Any = None
    action_names: Any = None


@dataclass(frozen=True)
class AbsoluteActions:
    """Turns offsets into actions again. Accepted only if switched off."""

    enabled: Literal[False] = False


@dataclass(frozen=True)
class Tokenise:
    """Turns the text of a task into tokens, padded to one length."""

    tokenizer_name: str | None = None
    max_length: int = 512
    task_key: Any = None
    padding_side: Literal["right"] = "right"  # the end of a text is found by its first padding
    padding: Any = None
    truncation: Any = None

    def __post_init__(self) -> None:
        check_ranges(self, max_length=(1, 4096))


ANYWHERE: dict[str, type] = {
    "to_batch_processor": Nothing,
    "to_batch_processor_action": Nothing,
    "to_batch_processor_observation": Nothing,
    "to_batch_processor_complementary_data": Nothing,
    "lerobot.processor.pipeline.IdentityProcessorStep": Nothing,  # by its class: it has no registered name
    "device_processor": Device,
    "relative_actions_processor": RelativeActions,
    "delta_actions_processor": RelativeActions,  # its name in 0.5.1
    "absolute_actions_processor": AbsoluteActions,
}
TOKENISE: dict[str, type] = {"tokenizer_processor": Tokenise}  # of policies that take language
STEPS: dict[str, dict[str, type]] = {
    BEFORE: {**ANYWHERE, "rename_observations_processor": Rename, "normalizer_processor": Normalise},
    AFTER: {**ANYWHERE, "unnormalizer_processor": Normalise},
}


@dataclass(frozen=True)
class Processor:
    """One of the two files: its normalisation, the place of its statistics, the names that it gives observations, and
    how it makes tokens of a text."""

    normalise: Normalise
    state_file: Path | None
    rename_map: Mapping[str, str]
    tokenise: Tokenise | None = None

    def outer_name(self, key: str) -> str:
        """Return the name that an observation of the policy has before it is renamed.

        Raises:
            SpecpolicyError: it has several, or none.
        """
        names = [old for old, new in self.rename_map.items() if new == key]
        if len(names) > 1:
            raise SpecpolicyError(f"its rename_map makes '{key}' of {' and of '.join(map(shown, names))}")
        if not names and key in self.rename_map:
            raise SpecpolicyError(f"its rename_map takes '{key}', which the policy needs, away")
        return names[0] if names else key


def read_processor(path: Path, language: bool = False) -> Processor:
    """Read a processor file and account for all its steps. `language`: whether the policy takes the text of a task.

    Raises:
        SpecpolicyError: no such file, an invalid one, or a step or setting that we do not reproduce.
    """
    content = read_json(path)
    known = STEPS[path.name] | (TOKENISE if language and path.name == BEFORE else {})
    _only(content, ("name", "steps"), str(path))
    if not isinstance(content.get("steps"), list):
        raise SpecpolicyError(f"{path} is not understood: it has no list of steps")
    done: dict[type, tuple[Any, str | None]] = {}
    for index, step in enumerate(content["steps"]):
        name, made = _step(step, known, f"{path}: step {index}")
        kind = type(made)
        if kind in (Rename, Normalise, Tokenise):
            if kind in done:
                raise SpecpolicyError(f"{path}: the step '{name}' stands there twice")
            if kind is Rename and Normalise in done:
                raise SpecpolicyError(f"{path}: the step '{name}' stands behind that which normalises")
            done[kind] = made, step.get("state_file")
        elif step.get("state_file") is not None:
            raise SpecpolicyError(f"{path}: the step '{name}' has a state file, which is not supported")
    if Normalise not in done:
        wanted = next(name for name, kind in known.items() if kind is Normalise)
        raise SpecpolicyError(f"{path} is not understood: a step '{wanted}' with its settings is expected")
    normalise, file = done[Normalise]
    if path.name == AFTER and ACTION in (normalise.normalize_observation_keys or ()):
        raise SpecpolicyError(f"{path}: normalize_observation_keys holds '{ACTION}', which is no observation")
    rename = done[Rename][0].rename_map if Rename in done else {}
    tokenise = done[Tokenise][0] if Tokenise in done else None
    return Processor(normalise, _beside(path, file), rename, tokenise)


def _step(step: Any, known: Mapping[str, type], where: str) -> tuple[str, Any]:
    """Return (name, settings) of one entry of the list."""
    if not isinstance(step, Mapping):
        raise SpecpolicyError(f"{where} is not understood: it is {shown(step)}")
    _only(step, ("registry_name", "class", "config", "state_file", "artifacts"), where)
    name = step.get("registry_name", step.get("class"))
    if not isinstance(name, str) or name not in known:
        hint = closest(name, known) if isinstance(name, str) else ""
        raise SpecpolicyError(
            f"{where}, {shown(name)}, is not supported: the policy would get or give other numbers than in LeRobot"
            f"{hint or '; supported are ' + ', '.join(known)}"
        )
    # From 0.6.2 on the tokenizer is saved in a directory beside. It is not read here: observations hold tokens.
    files = step.get("artifacts")
    if files and not (known[name] is Tokenise and isinstance(files, Mapping) and set(files) == {"tokenizer_name"}):
        raise SpecpolicyError(f"{where}, {shown(name)}: its files 'artifacts' are not supported")
    return name, parse(known[name], step.get("config") or {}, where, name)


def _beside(path: Path, file: Any) -> Path | None:
    """Return the state file that a step names, in the same directory."""
    if file is None:
        return None
    if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
        raise SpecpolicyError(f"{path}: the state file {shown(file)} is no name of a .safetensors file beside it")
    return path.parent / file


def _only(mapping: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    strange = [key for key in mapping if key not in known]
    if strange:
        raise SpecpolicyError(f"{where} has the unknown key {shown(strange[0])}; known: {', '.join(known)}")
