"""The samplers of a verb's configuration: names, or mappings of a name and options; null is the policy's best."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from specpolicy.errors import SpecpolicyError

if TYPE_CHECKING:
    from specpolicy.policy import Policy
    from specpolicy.sampler_names import AnySampler


def given_sampler(config: DictConfig) -> AnySampler | None:
    """Return the sampler that a verb was given; None if it was given none.

    Raises:
        SpecpolicyError: the sampler does not have an option, or the option does not take the value.
    """
    from specpolicy.sampler_names import make_sampler

    if config.sampler is None:
        return None
    (spec,) = sampler_specs([plain(config.sampler)], config.get("config_directories", [])).values()
    return make_sampler(**spec)


def name_best_sampler(config: DictConfig, policy: Policy) -> None:
    """Write the name of the policy's best sampler into the configuration if no sampler was given."""
    from specpolicy.cli.groups import load_option

    if config.sampler is None:
        config.sampler = load_option("sampler", policy.best_sampler)


def sampler_specs(entries: Any, config_directories: Any = ()) -> dict[str, dict[str, Any]]:
    """Return the samplers of a list of names and mappings, by label.

    An entry's options are those of its config group in `sampler`, overridden by its own. A number after its name is its
    number of steps. Its label is its `label`, or its name, its number of steps and whatever else differs from the
    group: "ddim-4", "ddim-10-eta1.0".
    """
    from specpolicy.cli.groups import load_option
    from specpolicy.evaluation.player import EXPERT
    from specpolicy.sampler_names import split_name

    specs: dict[str, dict[str, Any]] = {}
    for entry in entries:
        own = dict(entry) if isinstance(entry, dict) else {"name": str(entry)}
        if "name" not in own:
            raise SpecpolicyError(f"samplers: {entry} has no name; write for instance {{name: ddim, steps: 4}}")
        name, steps = split_name(str(own["name"]))
        own = {**({} if steps is None else {"steps": steps}), **own, "name": name}
        label = own.pop("label", None)
        shipped: dict[str, Any] = {"name": EXPERT}
        if own["name"] != EXPERT:
            shipped = plain(load_option("sampler", own["name"], config_directories))
        spec = {**shipped, **own}
        if label is None:
            label = spec["name"] + (f"-{spec['steps']}" if spec.get("steps") else "")
            for option, value in own.items():
                if option not in ("name", "steps") and value != shipped.get(option):
                    label += f"-{option}{value}"
        if str(label) in specs:
            raise SpecpolicyError(f"samplers: two are called '{label}'; leave one out or give it another label: ...")
        specs[str(label)] = spec
    return specs


def plain(config: Any) -> Any:
    """Return the configuration as plain lists and dicts."""
    return OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else config
