"""Write the README of a shipped policy: its data, its command, its training time, its success.

python scripts/describe_checkpoint.py checkpoints/lift EVALUATION/summary.json DEMONSTRATIONS NOISE MINUTES
"""

import json
import sys
from pathlib import Path

from specpolicy.files import write_text


def describe(directory: Path, summary: dict, demonstrations: int, noise: float, minutes: int) -> str:
    """Return the README's text, from the checkpoint's config.json and the summary of its evaluation."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    tokens, delayed = config.get("tokens"), summary["track"]["name"] == "delay"
    conditions = summary["conditions"] if tokens or delayed else summary["conditions"][:1]
    results = [f"{_method(condition, config)}: **{_result(condition)}**" for condition in conditions]
    machine, task = summary["machines"][0], config["task"]["name"]
    # A recipe keeps its demonstrations with its runs.
    written = [f" {word.replace('data=', 'output=')}" for word in config["command"].split() if word.startswith("data=")]
    cameras, poses = config["task"].get("cameras"), (config["task"].get("kwargs") or {}).get("absolute_actions")
    shown = f"'task.cameras=[{','.join(cameras)}]' " if cameras else ""
    shown += "+task.kwargs.absolute_actions=true " if poses else ""
    kind = (
        "A diffusion policy"
        if tokens is None
        else f"A policy of action tokens ({tokens['bins']} {tokens['kind']} bins)"
    )
    return f"""# {directory.name}

{kind} for `{config["task"]["id"]}`.

- Data: {demonstrations} demonstrations of the scripted expert, `specpolicy collect task={task} {shown}\
episodes={demonstrations} noise={noise:g} seed=0{"".join(written)}`
- Training: `{config["command"]}`
- Minutes for both: {minutes}, on {machine["cores"]} cores ({machine["cpu"]})
- Measured, {conditions[0]["episodes"]} episodes, seeds from {summary["seed"]}: {"; ".join(results)} (95 % intervals), \
`{summary["command"]}`
{_calibration(directory)}
To make it again: `scripts/make_checkpoints.sh {directory.name}`.
"""


def _calibration(directory: Path) -> str:
    """Return a line on the calibration of `recycled`."""
    path = directory / "speculation.json"
    if not path.exists():
        return ""
    made = json.loads(path.read_text(encoding="utf-8"))["report"]["config"]
    student = made.get("student", True)
    invented = f" and {made['invented']} made up" if student and made.get("invented") else ""
    learnt = f"{made['training_steps']} training steps" if student else "no student"
    return (
        f"- Calibration of `recycled`: `specpolicy calibrate`, {made['count']} observations{invented} of "
        f"{made['episodes']} episodes, {learnt}\n"
    )


def _method(condition: dict, config: dict) -> str:
    if condition["clock"] == "delay":
        late = f", d = {condition['delay']}, {condition['stitching']}" if condition["delay"] else ", d = 0"
        return condition["sampler"] + late
    return condition["label"] if "tokens" in config else f"sequential DDPM-{config['chain']['steps']}"


def _result(condition: dict) -> str:
    success = condition["success_rate"]
    result = f"success {success['estimate']:.2f} [{success['low']:.2f}, {success['high']:.2f}]"
    if condition["max_coverage"]:
        coverage = condition["max_coverage"]
        result += f", mean maximum coverage {coverage['estimate']:.3f} [{coverage['low']:.3f}, {coverage['high']:.3f}]"
    return result


def main() -> None:
    """See the module's docstring."""
    directory, summary, demonstrations, noise, minutes = sys.argv[1:]
    measured = json.loads(Path(summary).read_text(encoding="utf-8"))
    text = describe(Path(directory), measured, int(demonstrations), float(noise), int(minutes))
    write_text(Path(directory) / "README.md", text)
    print(text)


if __name__ == "__main__":
    main()
