"""Join the shards of an evaluation that was played in parts, and write its report.

Each part was played by the same specpolicy evaluate command with its own shard=1/16, shard=2/16, ... The rows are those
of the evaluation played in one piece. Nothing is written unless all shards are there and complete; what is missing is
named. Refused: shards of other settings, weights, versions or physics; and of other processors, where times matter.

Examples:
  specpolicy merge out=outputs/evaluate/lift
  specpolicy merge out=outputs/lift scratch/node1/shards/1-of-2 scratch/node2/shards/2-of-2
  specpolicy merge out=outputs/evaluate/lift logger=wandb
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from specpolicy.errors import SpecpolicyError

if TYPE_CHECKING:
    from specpolicy.evaluation.merging import Part


def run(config: DictConfig) -> None:
    """Join the shards that `config` (configs/merge.yaml) names."""
    from specpolicy.cli.configuration import save_config
    from specpolicy.cli.evaluation_report import report
    from specpolicy.cli.own_outputs import check_own
    from specpolicy.evaluation import merging
    from specpolicy.evaluation.results import Results
    from specpolicy.evaluation.shards import DIRECTORY
    from specpolicy.logging import make_logger
    from specpolicy.outputs import claim, run_name

    output = Path(config.out)
    # A shard that was killed before it played anything is as good as not there.
    begun = [path for path in sorted((output / DIRECTORY).glob("*-of-*")) if (path / merging.PLAN).exists()]
    directories = [Path(one) for one in config.shards or []] or begun
    if not directories:
        raise SpecpolicyError(
            f"no shards in {output / DIRECTORY}: specpolicy evaluate shard=1/2 writes them; or name them"
        )
    parts = [merging.read_part(directory) for directory in directories]
    merging.check_parts(parts)
    merging.check_hardware(parts, config.mixed_hardware)
    with claim(output, "merge"):
        check_own(output, "merge", ["merge.yaml"], _holds_shards, config.overwrite, settings="merge.yaml")
        merging.make_room(parts, output, config.overwrite)
        plan = dataclasses.replace(parts[0].plan, evaluation=merging.join(parts, output))
        save_config(config, output / "merge.yaml", "merge")
        shared = {**plan.provenance["config"], "shard": None, "output": str(output)}
        save_config(OmegaConf.create(shared), output / "config.yaml", "evaluate")
        command = shlex.join(["specpolicy", *sys.argv[1:]])
        plan = dataclasses.replace(plan, provenance={**_joined(parts), "command": command, "config": shared})
        with make_logger(config.logger, output, {**shared, "shards": len(parts)}, name=run_name(output)) as logger:
            report(plan, Results(output), output, logger)


def _joined(parts: Sequence[Part]) -> dict[str, Any]:
    """Return the provenance of the whole: what all shards have in common, and each one's own figures."""
    own = ("workers", "cluster", "load_at_start", "command", "config")
    shards = [{"shard": str(one.shard), **{name: one.plan.provenance.get(name) for name in own[:4]}} for one in parts]
    loads = [one["load_at_start"] for one in shards if one["load_at_start"] is not None]
    common = {name: value for name, value in parts[0].plan.provenance.items() if name not in own}
    return {**common, "workers": shards[0]["workers"], "load_at_start": max(loads, default=None), "shards": shards}


def _holds_shards(output: Path) -> bool:
    from specpolicy.evaluation.settings import is_evaluation
    from specpolicy.evaluation.shards import DIRECTORY

    return is_evaluation(output) or (output / DIRECTORY).is_dir()
