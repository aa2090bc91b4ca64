"""How Hydra finds and checks a verb's configuration: in a run, in every job of a sweep, for --cfg and from Python."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from specpolicy.cli.groups import SHIPPED, default_groups, load_option, shorthand
from specpolicy.cli.mistakes import check_chosen, check_known, explain
from specpolicy.cli.places import COMMAND_LINE, finished
from specpolicy.cli.values import check_types
from specpolicy.errors import SpecpolicyError


class VerbLoader(ConfigLoaderImpl):
    """Hydra's configuration loader for one verb.

    Args:
        verb: name of a file `<verb>.yaml` in the shipped configs.
        config_directories: directories with more options for the config groups, searched before the shipped one.
        checked: whether to raise errors; False for completion, where the line is not finished yet.
    """

    def __init__(self, verb: str, config_directories: Sequence[Path] = (), checked: bool = True) -> None:
        version.setbase("1.3")
        path = create_config_search_path(str(SHIPPED))
        for directory in reversed(config_directories):
            if (directory / f"{verb}.yaml").is_file():
                raise SpecpolicyError(
                    f"{directory / verb}.yaml would take the place of the verb's own: give it another name, begin its "
                    f"defaults list with {verb}, and choose it by --config-name"
                )
            path.prepend(COMMAND_LINE, f"file://{directory}", SearchPathQuery(provider="main"))
        super().__init__(path)
        self.verb, self.checked = verb, checked

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """Compose the configuration, with Hydra's own part; for a run, check all that needs no interpolation.

        Raises:
            SpecpolicyError: a key is unknown or missing, an option of a group is unknown, or a value has a wrong type.
        """
        rest = (from_shell, validate_sweep_overrides)
        if not self.checked or config_name is None:
            return super().load_configuration(config_name, overrides, run_mode, *rest)
        parsed, groups = OverridesParser.create().parse_overrides(overrides), default_groups(self.verb)
        # Hydra does not accept null as the choice of a group. Here it is the default of some groups.
        none = {one.key_or_group: None for one in parsed if one.key_or_group in groups and one.value() is None}
        check_chosen({group: groups[group] for group in none}, none, OmegaConf.create(), [], self._own_directories())
        overrides = [text for text, one in zip(overrides, parsed, strict=True) if one.key_or_group not in none]
        try:
            config = super().load_configuration(config_name, overrides, run_mode, *rest)
        except (HydraException, OmegaConfBaseException) as error:
            raise explain(error, self.verb, parsed, self._own_directories(), self) from error
        if config.hydra.job.chdir:
            raise SpecpolicyError(
                "hydra.job.chdir=true: the working directory never changes; name paths from where you are"
            )
        if run_mode == RunMode.RUN:
            _check(config, self.verb, parsed)
        return config

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """Compose a job of a sweep and check it in full.

        Hydra's record is written later, once the verb holds its output.
        """
        config = super().load_sweep_config(master_config, sweep_overrides)
        config.hydra.output_subdir = None
        numbered = copy.deepcopy(config)
        with open_dict(numbered.hydra):
            numbered.hydra.job.num, numbered.hydra.job.id = 0, "0"
        finished(numbered, self.verb)
        return config

    def _own_directories(self) -> list[Path]:
        return [Path(source.path) for source in self.get_sources() if source.provider == COMMAND_LINE]

    def _parse_overrides_and_create_caching_repo(
        self, config_name: str | None, overrides: list[str]
    ) -> tuple[list[Override], CachingConfigRepository]:
        parsed, repository = super()._parse_overrides_and_create_caching_repo(config_name, overrides)
        return parsed, OwnGroups(repository, self.verb)


class OwnGroups(CachingConfigRepository):
    """Lets Hydra see only the verb's own groups, and reads sampler=ddim-10 as sampler=ddim sampler.steps=10, see
    `shorthand`.

    A key such as evaluate's `policy` may have the name of a group that another verb uses; Hydra would take its value
    for an option of that group.
    """

    def __init__(self, repository: CachingConfigRepository, verb: str) -> None:
        super().__init__(repository)
        self.hidden = {path.name for path in SHIPPED.iterdir() if path.is_dir()} - default_groups(verb).keys()

    def group_exists(self, config_path: str) -> bool:
        return config_path.partition("/")[0] not in self.hidden and super().group_exists(config_path)

    def config_exists(self, config_path: str) -> bool:
        return super().config_exists(config_path) or self._short(config_path) is not None

    def get_group_options(self, group_name: str, results_filter: ObjectType | None = ObjectType.CONFIG) -> list[str]:
        if group_name.partition("/")[0] in self.hidden:
            return []
        return [name for name in super().get_group_options(group_name, results_filter) if name not in self.hidden]

    def load_config(self, config_path: str) -> ConfigResult | None:
        short = self._short(config_path)
        if short is None:
            try:
                return super().load_config(config_path)
            except yaml.YAMLError as error:
                raise SpecpolicyError(f"{config_path}: {' '.join(str(error).split())}") from error
        group, _, given = config_path.rpartition("/")
        name, key, value = short
        result = copy.deepcopy(super().load_config(f"{group}/{name}"))
        assert result is not None and isinstance(result.config, DictConfig)
        if key not in list(result.config):  # `in` does not find keys that are required
            raise SpecpolicyError(f"{group}={given}: unknown key '{group}.{key}', {name} has no number of steps")
        result.config[key] = value
        return result

    def _short(self, config_path: str) -> tuple[str, str, str | int] | None:
        """Return the `shorthand` of a name that is not itself an option."""
        group, _, name = config_path.rpartition("/")
        short = None if super().config_exists(config_path) else shorthand(group, name)
        return short if short is not None and super().config_exists(f"{group}/{short[0]}") else None


def _check(config: DictConfig, verb: str, overrides: Sequence[Override]) -> None:
    """Check the composed configuration; a single value becomes a list of one where a list belongs."""
    groups, choices = default_groups(verb), dict(config.hydra.runtime.choices)
    directories = [source.path for source in config.hydra.runtime.config_sources if source.schema == "file"]
    directories = [path for path in directories if Path(path) != SHIPPED]
    own = OmegaConf.load(SHIPPED / f"{verb}.yaml")
    assert isinstance(own, DictConfig)
    OmegaConf.set_struct(config, False)
    check_chosen(groups, choices, config, overrides, directories)
    for group in groups:  # with the groups of which nothing was chosen
        config.setdefault(group, None)
    check_known(config, own, verb)
    if directories:
        config.config_directories = directories
    OmegaConf.set_struct(config, True)
    check_types(config, own)
    for group in groups:
        choice: Any = choices.get(group)
        if isinstance(choice, str):
            check_types(config[group], load_option(group, choice, directories), f"{group}.")
