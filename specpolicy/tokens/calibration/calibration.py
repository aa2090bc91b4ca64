"""What is known of a token policy and a machine before decoding: draft graphs, and how many drafts pay."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from specpolicy.errors import SpecpolicyError
from specpolicy.files import write_text
from specpolicy.tokens.graph import DraftGraph, parse_nodes

FORMAT = 1
FILE = "drafts.json"


@dataclass(frozen=True)
class DecoderCalibration:
    """For one target law: the drafter, how many drafts are fastest here (0: none are), and for graphs the largest ones,
    by the number of masked positions. `report`: what was measured."""

    drafter: str
    drafts: int
    graphs: dict[int, DraftGraph] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TokenCalibration:
    """Calibrations by target law, for chunks of `length` tokens of `bins`. They change speed, never a token."""

    length: int
    bins: int
    decoders: dict[str, DecoderCalibration] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)

    def check(self, length: int, bins: int) -> None:
        """Raise if this was made for another policy's tokens."""
        if (self.length, self.bins) != (length, bins):
            raise SpecpolicyError(
                f"this calibration is for {self.length} tokens of {self.bins} bins, the policy has {length} of {bins}: "
                "run `specpolicy calibrate` for this policy"
            )

    def save(self, directory: str | Path) -> Path:
        """Write `drafts.json` beside a checkpoint."""
        decoders = {
            law: {
                "drafter": found.drafter,
                "drafts": found.drafts,
                "graphs": {
                    str(masked): {"nodes": graph.nodes, "weights": graph.weights}
                    for masked, graph in found.graphs.items()
                },
                "report": found.report,
            }
            for law, found in self.decoders.items()
        }
        settings = {"format": FORMAT, "length": self.length, "bins": self.bins, "report": self.report}
        write_text(Path(directory) / FILE, json.dumps({**settings, "decoders": decoders}) + "\n")
        return Path(directory)

    @classmethod
    def load(cls, directory: str | Path) -> "TokenCalibration":
        """Read what `save` wrote."""
        path = Path(directory) / FILE
        try:
            settings = json.loads(path.read_text(encoding="utf-8"))
            decoders = {
                law: DecoderCalibration(
                    str(found["drafter"]),
                    int(found["drafts"]),
                    {
                        int(masked): DraftGraph(parse_nodes(graph["nodes"]), tuple(graph["weights"]))
                        for masked, graph in found["graphs"].items()
                    },
                    dict(found["report"]),
                )
                for law, found in settings["decoders"].items()
            }
            return cls(int(settings["length"]), int(settings["bins"]), decoders, dict(settings["report"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            reason = " ".join(str(error).split())[:200]
            raise SpecpolicyError(f"{path} cannot be read ({reason}): calibrate the policy again") from None


def read_token_calibration(directory: str | Path) -> TokenCalibration | None:
    """The calibration beside a checkpoint, None if there is none."""
    return TokenCalibration.load(directory) if (Path(directory) / FILE).exists() else None
