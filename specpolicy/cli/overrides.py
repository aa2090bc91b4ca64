"""Single settings of the command line, key=value: Hydra's grammar, except that paths and names are always text."""

import re
from collections.abc import Collection, Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from specpolicy.errors import SpecpolicyError

# Keys whose values are paths, names or addresses. Their values are taken as written: a directory 2026, checkpoints
# 1_000 and 0.950 and a data set 1e5 are not numbers.
TEXT = frozenset(
    (
        *("api_key", "data", "device", "expert", "host", "observations", "out", "output", "path", "policy"),
        *("reference", "rollout_sampler", "trace", "trace_sampler", "track.trace", "task.id", "task.name"),
        *("logger.entity", "logger.group", "logger.project"),
    )
)
PATHS = {"merge": "shards"}  # {verb: key of the paths that may be given without a key}
HYDRA_TEXT = frozenset(("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir"))
# Characters with a meaning in Hydra's grammar, besides spaces at the ends of a value.
SPECIAL = "=,()[]{}'\""
REFUSED = re.compile(r"[^A-Za-z0-9_/\\\-+.$%*@?|:\s]")  # other characters must be quoted


def parse_override(text: str, texts: Collection[str] = TEXT, several: bool = False) -> Override:
    """Parse one setting as Hydra does; the value of a key in `texts` stays text exactly as written.

    Args:
        text: the setting, key=value.
        texts: keys whose values are text.
        several: whether it may give several values, for the jobs of a sweep.

    Raises:
        SpecpolicyError: it cannot be parsed, gives several values where it must not, or removes a key.
    """
    if "=" not in text and not text.startswith("~"):
        raise SpecpolicyError(f"cannot read '{text}': settings are written key=value")
    key, _, value = text.partition("=")
    values = value.split(",") if several else [value]
    if key.lstrip("+") in texts and all(_is_plain(one.strip()) for one in values):
        return _parse(f"{key}={','.join(_as_text(key, one.strip()) for one in values)}")
    try:
        override = _parse(text)
    except HydraException as error:
        raise SpecpolicyError(f"cannot read '{text}': {_advice(key, value.strip())}") from error
    if override.is_sweep_override() and not several:
        raise SpecpolicyError(
            f"'{text}' gives several values; --multirun runs a job for each (a list is written [a,b], a name with a "
            f"comma {_for_shell(key, value.strip())})"
        )
    if override.is_delete():
        raise SpecpolicyError(f"'{text}': keys cannot be removed")
    found = override.value()
    if isinstance(found, dict) and found and _entries(value) > len(found):
        raise SpecpolicyError(f"'{text}' gives a key twice")
    return override


def with_paths(verb: str, texts: Sequence[str]) -> list[str]:
    """Return the settings of a verb with the paths among them, given without a key, as one setting of their key."""
    key = PATHS.get(verb)
    paths = [text for text in texts if key is not None and "=" not in text and not text.startswith("~")]
    settings = [text for text in texts if text not in paths]
    return [*settings, f"{key}=[{','.join(map(_quoted, paths))}]"] if paths else settings


def _entries(mapping: str) -> int:
    """Count the entries of a mapping {key:value,...} as written; Hydra keeps the last one of a key and says nothing."""
    depth = commas = 0
    for sign in re.sub(r"\\.|'[^']*'|\"[^\"]*\"", "", mapping.strip()):
        depth += (sign in "{[(") - (sign in "}])")
        commas += sign == "," and depth == 1
    return commas + 1


def _is_plain(value: str) -> bool:
    """Whether no character of a value has a meaning in Hydra's grammar."""
    special = any(sign in value for sign in (*SPECIAL, "${")) or value.startswith("~")
    return bool(value) and not special and value.casefold() != "null"


def _as_text(key: str, value: str) -> str:
    """Return a plain value, in quotes if Hydra would not read it as text."""
    try:
        if _parse(f"{key}={value}").value() == value:
            return value
    except HydraException:
        pass
    return _quoted(value)


def check_texts(config: DictConfig, texts: Collection[str] = TEXT) -> None:
    """Turn whole numbers that a yaml file gives for names into text; refuse other values that are not text.

    Raises:
        SpecpolicyError: for example output=[a,b].
    """
    for name in texts:
        parent, _, key = name.rpartition(".")
        node = OmegaConf.select(config, parent) if parent else config
        if not isinstance(node, DictConfig) or key not in node or OmegaConf.is_missing(node, key):
            continue
        value = None if OmegaConf.is_interpolation(node, key) else node[key]
        if isinstance(value, int) and not isinstance(value, bool):
            node[key] = str(value)
        elif value == "" or not (value is None or isinstance(value, str)):
            raise SpecpolicyError(f"{name}={value}: expected text; what is no plain word is quoted, {name}='...'")


def _parse(text: str) -> Override:
    return OverridesParser.create().parse_override(text)


def _advice(key: str, value: str) -> str:
    """Return what to write instead; it has been parsed to make sure that it works."""
    try:
        _parse(f"{key}={_quoted(value)}")
    except HydraException:
        return f"'{key}' is no key (letters, digits, _ and dots)"
    if value.startswith("~/"):
        return f"a home directory is written with $HOME, {key}=$HOME{value[1:]}"
    signs = "".join(dict.fromkeys(REFUSED.findall(value)))
    holds = f"that holds {signs}" if signs else "that looks like a call"
    return f"quote a value {holds}: {_for_shell(key, value)}"


def _for_shell(key: str, value: str) -> str:
    """Return a setting with its value quoted for a shell."""
    quoted = f"{key}={_quoted(value)}"
    if not any(sign in quoted for sign in '"$`\\!'):
        return f'"{quoted}"'
    return "'" + quoted.replace("'", "'\\''") + "'"


def _quoted(value: str) -> str:
    """Return a value in Hydra's quotes; backslashes are special only before a quote."""
    escaped = re.sub(r"(\\*)(')", r"\1\1\\\2", value)
    trailing = len(escaped) - len(escaped.rstrip("\\"))
    return f"'{escaped}{chr(92) * trailing}'"
