"""What is known of a token policy and a machine before decoding: draft graphs, and how many drafts pay."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from specpolicy.errors import SpecpolicyError
from specpolicy.files import write_text
from specpolicy.tokens.graph import DraftGraph, parse_nodes

FORMAT = 2
FILE = "drafts.json"


@dataclass(frozen=True)
class DecoderCalibration:
    """For one target law, what drafts and how many drafts are fastest.

    drafter: its name. drafts: by machine, as in "cpu" or "cuda"; 0: none are. graphs: for the drafter "graph" the
    largest ones, by the number of masked positions; all machines share them. report: what was measured, among it mean
    `calls` and `rows` of a chunk by the number of drafts, on any machine, and `seconds` by machine.
    """

    drafter: str
    drafts: dict[str, int] = field(default_factory=dict)
    graphs: dict[int, DraftGraph] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)

    def timed(self, machine: str, seconds_by_rows: Mapping[int, float]) -> "DecoderCalibration":
        """The same with the number of drafts D for a machine: of those whose cost is known, zero among them, the one
        with the least calls(D) * seconds(1 + D)."""
        calls = {drafts: mean for drafts, mean in self.report["calls"].items() if 1 + int(drafts) in seconds_by_rows}
        seconds = {drafts: mean * seconds_by_rows[1 + int(drafts)] for drafts, mean in calls.items()}
        fastest = min(seconds, key=lambda drafts: seconds[drafts])
        report = {**self.report, "seconds": {**self.report.get("seconds", {}), machine: seconds}}
        return replace(self, drafts={**self.drafts, machine: int(fastest)}, report=report)


@dataclass(frozen=True)
class TokenCalibration:
    """Calibrations by target law, for chunks of `length` tokens of `bins`. They change speed, never a token.

    costs: by machine, seconds of a call of the network by its number of rows. report: how all this was made.
    """

    length: int
    bins: int
    decoders: dict[str, DecoderCalibration] = field(default_factory=dict)
    costs: dict[str, dict[int, float]] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)

    def added(self, law: str, found: DecoderCalibration) -> "TokenCalibration":
        """The same with one decoder more, or anew: the number of its drafts is chosen for all machines known here."""
        for machine, seconds_by_rows in self.costs.items():
            found = found.timed(machine, seconds_by_rows)
        return replace(self, decoders={**self.decoders, law: found})

    def check(self, length: int, bins: int) -> None:
        """Raise if this was made for another policy's tokens."""
        if (self.length, self.bins) != (length, bins):
            raise SpecpolicyError(
                f"this calibration is for {self.length} tokens of {self.bins} bins, the policy has {length} of {bins}: "
                f"delete {FILE} and run `specpolicy calibrate` for this policy"
            )

    def save(self, directory: str | Path) -> Path:
        """Write `drafts.json` beside a checkpoint."""
        decoders = {
            law: {
                "drafter": found.drafter,
                "drafts": found.drafts,
                "graphs": {
                    masked: {"nodes": graph.nodes, "weights": graph.weights} for masked, graph in found.graphs.items()
                },
                "report": found.report,
            }
            for law, found in self.decoders.items()
        }
        settings = {
            "format": FORMAT,
            "length": self.length,
            "bins": self.bins,
            "costs": self.costs,
            "report": self.report,
        }
        write_text(Path(directory) / FILE, json.dumps({**settings, "decoders": decoders}) + "\n")
        return Path(directory)

    @classmethod
    def load(cls, directory: str | Path) -> "TokenCalibration":
        """Read what `save` wrote."""
        path = Path(directory) / FILE
        try:
            settings = json.loads(path.read_text(encoding="utf-8"))
            if settings["format"] != FORMAT:
                raise ValueError(f"it has format {settings['format']}, not {FORMAT}")
            decoders = {
                law: DecoderCalibration(
                    str(found["drafter"]),
                    {machine: int(drafts) for machine, drafts in found["drafts"].items()},
                    {
                        int(masked): DraftGraph(parse_nodes(graph["nodes"]), tuple(graph["weights"]))
                        for masked, graph in found["graphs"].items()
                    },
                    dict(found["report"]),
                )
                for law, found in settings["decoders"].items()
            }
            costs = {
                machine: {int(rows): float(seconds) for rows, seconds in cost.items()}
                for machine, cost in settings["costs"].items()
            }
            return cls(int(settings["length"]), int(settings["bins"]), decoders, costs, dict(settings["report"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            reason = " ".join(str(error).split())[:200]
            raise SpecpolicyError(
                f"{path} cannot be read ({reason}): delete it and calibrate the policy again"
            ) from None


def read_token_calibration(directory: str | Path) -> TokenCalibration | None:
    """The calibration beside a checkpoint, None if there is none."""
    return TokenCalibration.load(directory) if (Path(directory) / FILE).exists() else None
