"""Write the README of a shipped policy: its data, its command, the minutes it took, what it reaches.

python scripts/describe_checkpoint.py checkpoints/lift EVALUATION/summary.json DEMONSTRATIONS NOISE MINUTES
"""

import json
import sys
from pathlib import Path

from specpolicy.files import write_text


def describe(directory: Path, summary: dict, demonstrations: int, noise: float, minutes: int) -> str:
    """The README's text, from the checkpoint's config.json and the summary of its evaluation."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    measured = summary["arms"][0]
    success = measured["success_rate"]
    result = f"success {success['estimate']:.2f} [{success['low']:.2f}, {success['high']:.2f}]"
    if measured["max_coverage"]:
        coverage = measured["max_coverage"]
        result += f", mean maximum coverage {coverage['estimate']:.3f} [{coverage['low']:.3f}, {coverage['high']:.3f}]"
    machine = summary["machines"][0]
    return f"""# {config["task"]["name"]}

A diffusion policy for `{config["task"]["id"]}`.

- Data: {demonstrations} demonstrations of the scripted expert, `specpolicy collect task={config["task"]["name"]} \
episodes={demonstrations} noise={noise:g} seed=0`
- Training: `{config["command"]}`
- Minutes for both: {minutes}, on {machine["cores"]} cores ({machine["cpu"]})
- Measured: sequential DDPM-{config["chain"]["steps"]}, {measured["episodes"]} episodes, seeds from {summary["seed"]}: \
**{result}** (95 % intervals), `{summary["command"]}`

All of it again: `scripts/make_checkpoints.sh {config["task"]["name"]}`.
"""


def main() -> None:
    """See the module's docstring."""
    directory, summary, demonstrations, noise, minutes = sys.argv[1:]
    measured = json.loads(Path(summary).read_text(encoding="utf-8"))
    text = describe(Path(directory), measured, int(demonstrations), float(noise), int(minutes))
    write_text(Path(directory) / "README.md", text)
    print(text)


if __name__ == "__main__":
    main()
