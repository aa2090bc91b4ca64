"""Play recorded actions again, and say where the physics departs from the recording.

Each episode is reset by its seed and given the actions that were executed. With the same versions on the same processor
it is the same to the bit. Where it departs, the first step, the quantity and the size of the difference are named: the
simulator, a model or the task has changed since, and success may have changed with it.

Examples:
  specpolicy replay path=data/lift.hdf5
  specpolicy replay path=outputs/evaluate/lift episodes=10
  specpolicy replay path=data/lift_lerobot tolerance=0
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from specpolicy.errors import SpecpolicyError

if TYPE_CHECKING:
    from specpolicy.evaluation.replaying import Replayed

COLUMNS = ("episode", "seed", "steps", "same", "identical", "departs_at", "key", "size")
SHOWN = 5  # departures that are printed


def run(config: DictConfig) -> None:
    """Play again what `config` (configs/replay.yaml) names."""
    from specpolicy.cli.configuration import save_config
    from specpolicy.cli.own_outputs import check_own
    from specpolicy.evaluation.replaying import recorded, replay
    from specpolicy.evaluation.results import write_table
    from specpolicy.logging.progress import progress_bar
    from specpolicy.outputs import claim, default_name

    if config.tolerance < 0:
        raise SpecpolicyError(f"tolerance={config.tolerance:g}: expected 0 or more")
    path = Path(config.path)
    if not path.exists():
        raise SpecpolicyError(f"path={path}: no such file or directory")
    found = recorded(path)
    output = Path(config.output or f"outputs/replay/{default_name(path)}")
    with claim(output, "replay"):
        check_own(output, "replay", ["config.yaml", "replay.csv"])
        save_config(config, output, "replay")
        episodes: list[Replayed] = []
        with progress_bar(len(found.names[: config.episodes]), f"replay {path.name}") as bar:
            for episode in replay(found, config.episodes, config.tolerance):
                episodes.append(episode)
                bar.advance(1)
        write_table(output / "replay.csv", COLUMNS, map(_row, episodes))
    departed = [episode for episode in episodes if episode.departure is not None]
    identical = sum(episode.identical for episode in episodes)
    same = len(episodes) - len(departed)
    print(f"{same} of {len(episodes)} episodes are the same within {config.tolerance:g}, {identical} to the bit")
    for episode in departed[:SHOWN]:
        print(str(episode))
    if changed := found.changed:
        print(f"recorded with {'; '.join(changed)}")
    if len(departed) > SHOWN:
        print(f"and {len(departed) - SHOWN} more, see {output / 'replay.csv'}")


def _row(episode: Replayed) -> dict[str, str]:
    where = episode.departure
    departs = ("", "", "") if where is None else (str(where.step), where.key, repr(where.size))
    known = (episode.name, "" if episode.seed is None else str(episode.seed), str(episode.steps))
    flags = (str(int(where is None)), str(int(episode.identical)))
    return dict(zip(COLUMNS, (*known, *flags, *departs), strict=True))
