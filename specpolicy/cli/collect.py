"""Record demonstrations of a task with its scripted expert.

The expert's action plus Gaussian noise is executed and the clean action is stored as the label, so the data shows how
to recover from mistakes. Only episodes that succeed are kept; a failed one is replaced by another. The data depends
only on the settings, not on the number of processes. To continue after a kill, run the same command again.

The file has robomimic's HDF5 layout, with the masks train and valid. format=lerobot writes a LeRobot data set (v3.0)
into a directory instead, with the splits train and valid.

Examples:
  specpolicy collect task=lift episodes=100 noise=0.15 seed=0
  specpolicy collect task=push_t episodes=200 workers=2 output=data/push_t_200.hdf5
  specpolicy collect task=lift episodes=100 format=lerobot output=data/lift_lerobot
  specpolicy collect task=gym task.id=mine:Reach-v0 expert=mine:make_expert episodes=20
"""

from pathlib import Path

from omegaconf import DictConfig

from specpolicy.errors import SpecpolicyError


def run(config: DictConfig) -> None:
    """Collect the demonstrations and write them with their configuration."""
    import contextlib
    import json

    from omegaconf import OmegaConf

    from specpolicy.cli.clusters import Needs, cluster_options, opened
    from specpolicy.cli.configuration import save_config
    from specpolicy.cli.own_outputs import saved_by
    from specpolicy.cli.samplers import plain
    from specpolicy.cluster import Processes
    from specpolicy.data.collect import collect
    from specpolicy.data.recorder import Recording
    from specpolicy.logging.progress import progress_bar

    output = check(config)
    # Beside the data; data/lift.h5 and data/lift.hdf5 must not share one file.
    beside = output.with_suffix(".yaml") if output.suffix == ".hdf5" else output.with_name(f"{output.name}.yaml")
    if beside.exists() and not saved_by(beside, "collect"):
        raise SpecpolicyError(f"{beside}, where the settings go, is not of specpolicy collect: choose another output")
    recording = Recording(
        task=json.dumps(OmegaConf.to_container(config.task), sort_keys=True),
        noise=float(config.noise),
        seed=config.seed,
        max_seconds=float(config.max_seconds),
        expert=config.expert,
    )
    attempts = successes = 0
    options = cluster_options(config, shares=False)
    needs = Needs(output.parent, plain(config.task))
    own = contextlib.nullcontext(Processes()) if output.exists() else opened(options, needs)
    with own as crew, progress_bar(config.episodes, f"collect {config.task.name}") as bar:

        def on_attempt(kept: bool, success: bool) -> None:
            nonlocal attempts, successes
            attempts, successes = attempts + 1, successes + success
            bar.advance(int(kept), expert_success=successes / attempts)

        collected = collect(
            recording,
            config.episodes,
            output,
            crew,
            config.keep_failures,
            config.validation,
            config.format,
            on_attempt,
        )
    if collected is None:
        print(f"{output} is complete already: {config.episodes} demonstrations")
        return
    save_config(config, beside, "collect")
    print(
        f"wrote {output}: {collected.demonstrations} demonstrations, {collected.samples} steps; the expert "
        f"succeeded in {collected.successes} of {collected.attempts} attempts"
    )


def check(config: DictConfig) -> Path:
    """Refuse settings that cannot work; return the file or directory to write."""
    limits = {
        "episodes": config.episodes >= 1,
        "noise": config.noise >= 0,
        "seed": config.seed >= 0,
        "validation": 0 < config.validation < 1,
        "max_seconds": config.max_seconds > 0,
    }
    for key, right in limits.items():
        if not right:
            raise SpecpolicyError(f"{key}={config[key]} is out of range (specpolicy collect --help)")
    return _output(config)


def _output(config: DictConfig) -> Path:
    """Return the file or directory to write, by default named after the task."""
    from specpolicy.data.collect import FORMATS

    if config.format not in FORMATS:
        raise SpecpolicyError(f"format={config.format}: use one of {', '.join(FORMATS)}")
    output = Path(config.output)
    if config.format == "lerobot":
        if output == Path(f"data/{config.task.name}.hdf5"):  # the default
            return output.with_name(f"{config.task.name}_lerobot")
        if output.suffix in (".hdf5", ".h5"):
            raise SpecpolicyError(f"output={output}: LeRobot's format is a directory, name one")
    elif output.suffix not in (".hdf5", ".h5"):
        raise SpecpolicyError(f"output={output}: expected a file name that ends in .hdf5 (or format=lerobot)")
    return output
