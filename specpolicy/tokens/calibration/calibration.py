"""Tuning data of a token policy: draft graphs by decoder, and the best number of drafts by machine."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from specpolicy.errors import SpecpolicyError
from specpolicy.files import write_text
from specpolicy.parsing import check_ranges, parse, read_json
from specpolicy.tokens.graph import DraftGraph, parse_nodes

FORMAT = 2
FILE = "drafts.json"
REMEDY = "delete it and calibrate the policy again"
MOST_BYTES = 64 * 2**20
MOST_DRAFTS = 4096


@dataclass(frozen=True)
class GraphFile:
    """A draft graph in drafts.json. `nodes`: see `parse_nodes`, which checks them."""

    nodes: Any
    weights: Sequence[float]


@dataclass(frozen=True)
class DecoderFile:
    """The entry of one target distribution in drafts.json; see `DecoderCalibration`."""

    drafter: Literal["graph", "chain", "fixed_point"]
    drafts: Mapping[str, int]
    graphs: Mapping[int, GraphFile]
    report: Mapping[str, Any]

    def __post_init__(self) -> None:
        if any(not 0 <= drafts <= MOST_DRAFTS for drafts in self.drafts.values()):
            raise SpecpolicyError(f"drafts must lie between 0 and {MOST_DRAFTS}")

    def made(self) -> "DecoderCalibration":
        """Return the calibration of this decoder."""
        graphs = {
            masked: DraftGraph(parse_nodes(graph.nodes), tuple(graph.weights)) for masked, graph in self.graphs.items()
        }
        return DecoderCalibration(self.drafter, dict(self.drafts), graphs, dict(self.report))


@dataclass(frozen=True)
class TokenCalibrationFile:
    """Contents of drafts.json; see `TokenCalibration`."""

    format: Literal[2]
    length: int
    bins: int
    costs: Mapping[str, Mapping[int, float]]
    report: Mapping[str, Any]
    decoders: Mapping[str, DecoderFile]
    fingerprint: str | None = None

    def __post_init__(self) -> None:
        check_ranges(self, length=(1, 2**24), bins=(2, 4096))


@dataclass(frozen=True)
class DecoderCalibration:
    """The fastest drafter and numbers of drafts for one target distribution.

    Attributes:
        drafter: its name.
        drafts: number of drafts by machine, as in "cpu" or "cuda"; 0: none.
        graphs: for the drafter "graph" the largest ones, by the number of masked positions; all machines share them.
        report: the measurements, among them mean `calls` and `rows` of a chunk by the number of drafts, on any machine,
            and `seconds` by machine.
    """

    drafter: str
    drafts: dict[str, int] = field(default_factory=dict)
    graphs: dict[int, DraftGraph] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)

    def timed(self, machine: str, seconds_by_rows: Mapping[int, float]) -> "DecoderCalibration":
        """Return a copy with the number of drafts D for a machine. Of the numbers with a known cost, zero among them,
        it is the one with the least calls(D) * seconds(1 + D)."""
        calls = {drafts: mean for drafts, mean in self.report["calls"].items() if 1 + int(drafts) in seconds_by_rows}
        seconds = {drafts: mean * seconds_by_rows[1 + int(drafts)] for drafts, mean in calls.items()}
        fastest = min(seconds, key=lambda drafts: seconds[drafts])
        report = {**self.report, "seconds": {**self.report.get("seconds", {}), machine: seconds}}
        return replace(self, drafts={**self.drafts, machine: int(fastest)}, report=report)


@dataclass(frozen=True)
class TokenCalibration:
    """Calibrations by target distribution, for chunks of `length` tokens of `bins`. They change speed, never a token.

    Attributes:
        costs: by machine, seconds of a call of the network by its number of rows.
        report: how the calibration was made.
        fingerprint: of the policy it was made for (see `specpolicy.fingerprints`); None if unknown.
    """

    length: int
    bins: int
    decoders: dict[str, DecoderCalibration] = field(default_factory=dict)
    costs: dict[str, dict[int, float]] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    fingerprint: str | None = None

    def added(self, distribution: str, found: DecoderCalibration) -> "TokenCalibration":
        """Return a copy with one decoder added or replaced; its number of drafts is chosen for all known machines."""
        for machine, seconds_by_rows in self.costs.items():
            found = found.timed(machine, seconds_by_rows)
        return replace(self, decoders={**self.decoders, distribution: found})

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
            distribution: {
                "drafter": found.drafter,
                "drafts": found.drafts,
                "graphs": {
                    masked: {"nodes": graph.nodes, "weights": graph.weights} for masked, graph in found.graphs.items()
                },
                "report": found.report,
            }
            for distribution, found in self.decoders.items()
        }
        settings = {
            "format": FORMAT,
            "length": self.length,
            "bins": self.bins,
            "costs": self.costs,
            "report": self.report,
            "fingerprint": self.fingerprint,
        }
        write_text(Path(directory) / FILE, json.dumps({**settings, "decoders": decoders}) + "\n")
        return Path(directory)

    @classmethod
    def load(cls, directory: str | Path) -> "TokenCalibration":
        """Read the file that `save` wrote."""
        path = Path(directory) / FILE
        try:
            settings = parse(TokenCalibrationFile, read_json(path, MOST_BYTES), path)
            decoders = {distribution: found.made() for distribution, found in settings.decoders.items()}
        except SpecpolicyError as error:
            raise SpecpolicyError(f"{path} cannot be read ({error}): {REMEDY}") from None
        costs = {machine: dict(cost) for machine, cost in settings.costs.items()}
        report = dict(settings.report)
        return cls(settings.length, settings.bins, decoders, costs, report, settings.fingerprint)


def read_token_calibration(directory: str | Path) -> TokenCalibration | None:
    """Return the calibration beside a checkpoint, None if there is none. The caller checks whose it is."""
    return TokenCalibration.load(directory) if os.path.lexists(Path(directory) / FILE) else None
