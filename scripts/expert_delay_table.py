"""The cost of delay: success of the scripted experts when their observations are old.

    python scripts/expert_delay_table.py --tasks lift lift_conveyor --episodes 100

Each task is measured twice: with the whole observation old, and with only the scene old, as on a robot that knows its
joints at once and whose cameras and computer are slow. In the first case the expert's own feedback loop suffers, too,
even if the scene stands still. In the second case, losses are due only to the motion of the world.

Every finished episode is kept in `--work`. Run the script again to continue, also with more episodes; the table always
holds all tasks measured so far. After a change to a task or its expert, delete its file there.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

from specpolicy.cluster.jobs import run_jobs
from specpolicy.evaluation.statistics import wilson
from specpolicy.files import write_text
from specpolicy.logging.progress import progress_bar
from specpolicy.tasks import make_task_env

TASKS = {
    "lift": "specpolicy/Lift-v0",
    "can": "specpolicy/PickPlaceCan-v0",
    "square": "specpolicy/NutAssemblySquare-v0",
    "push_t": "specpolicy/PushT-v0",
    "lift_conveyor": "specpolicy/LiftConveyor-v0",
    "push_t_moving": "specpolicy/PushTMoving-v0",
}
DELAYS = (0.0, 0.1, 0.25, 0.5, 1.0)
AGED = {"all": "the whole observation", "scene": "the scene"}
OWN_BODY = ("robot0_", "agent_pos")  # keys of the robot's own state


class DelayedExpert:
    """Runs episodes of one task's expert on observations of a given age."""

    env: Any

    def __init__(self, env_id: str) -> None:
        import specpolicy_envs

        self.env = make_task_env({"id": env_id})
        self.expert = specpolicy_envs.make_expert(env_id, seed=0)

    def __call__(self, job: dict[str, Any]) -> dict[str, Any]:
        """Play one episode with `seed`; `delay` in seconds is rounded to control steps.

        Until the first old observation exists, the expert sees the one of the reset.
        """
        # Round half up: 0.25 s at 10 Hz is three steps, but Python's round(2.5) is 2.
        steps = int(np.floor(job["delay"] * self.env.unwrapped.control_hz + 0.5))
        observation, info = self.env.reset(seed=job["seed"])
        self.expert.reset(job["seed"])
        seen, done = [observation], False
        while not done:
            old = seen[max(0, len(seen) - 1 - steps)]
            fresh = OWN_BODY if job["aged"] == "scene" else ()
            view = {key: (observation if key.startswith(fresh) else old)[key] for key in observation}
            observation, _, terminated, truncated, info = self.env.step(self.expert.act(view))
            seen.append(observation)
            done = terminated or truncated
        return {
            **job,
            "success": bool(info["is_success"]),
            "seconds": (len(seen) - 1) / self.env.unwrapped.control_hz,
            "max_coverage": info.get("max_coverage"),
        }

    def close(self) -> None:
        self.env.close()


def measure(task: str, episodes: int, processes: int, work: Path) -> None:
    """Run the episodes that `work` lacks; append each to it as a line of JSON."""
    jobs = [
        {"aged": aged, "delay": delay, "seed": seed}
        for seed, aged, delay in itertools.product(range(episodes), AGED, DELAYS)
        if aged == "all" or delay > 0  # without a delay both are the same
    ]
    done = {(result["aged"], result["delay"], result["seed"]) for result in finished(task, work)}
    missing = [job for job in jobs if tuple(job.values()) not in done]
    with progress_bar(len(jobs), task, done=len(jobs) - len(missing)) as progress, _file(task, work).open("a") as lines:
        for result in run_jobs(DelayedExpert, TASKS[task], missing, processes):
            lines.write(json.dumps(result) + "\n")
            lines.flush()
            progress.advance()


def finished(task: str, work: Path) -> list[dict[str, Any]]:
    """Return the task's finished episodes; a line that a kill left incomplete does not count."""
    path = _file(task, work)
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
        write_text(path, "".join(lines))
    return [json.loads(line) for line in lines]


def _file(task: str, work: Path) -> Path:
    return work / f"{task}.jsonl"


def summarise(task: str, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row per age and delay, with counts and means over the seeds that have finished at all of them."""
    through = [sum(result["seed"] == seed for result in results) for seed in range(len(results))]
    whole = {seed for seed, count in enumerate(through) if count == 2 * len(DELAYS) - 1}
    groups: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for result in results:
        if result["seed"] in whole:
            groups.setdefault((result["aged"], result["delay"]), []).append(result)
    rows = []
    for (aged, delay), group in sorted(groups.items()):
        coverages = [result["max_coverage"] for result in group if result["max_coverage"] is not None]
        rows.append(
            {
                "task": task,
                "aged": aged,
                "delay": delay,
                "episodes": len(group),
                "successes": sum(result["success"] for result in group),
                "seconds": float(np.mean([result["seconds"] for result in group])),
                "max_coverage": float(np.mean(coverages)) if coverages else None,
            }
        )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Return a Markdown table: one row per task and age, one column per delay."""
    lines = [
        "| task | what is old | " + " | ".join(f"{delay:g} s" for delay in DELAYS) + " |",
        "|" + "---|" * (2 + len(DELAYS)),
    ]
    cells = {(row["task"], row["aged"], row["delay"]): row for row in rows}
    for task, aged in itertools.product(TASKS, AGED):
        if (task, aged, DELAYS[-1]) in cells:
            # Without a delay nothing is old, so this column is the same for both.
            row = [cells.get((task, aged, delay), cells.get((task, "all", delay))) for delay in DELAYS]
            lines.append(f"| {task} | {AGED[aged]} | " + " | ".join(_cell(cell) for cell in row if cell) + " |")
    return "\n".join(lines)


def _cell(row: dict[str, Any]) -> str:
    interval = wilson(row["successes"], row["episodes"])
    text = f"{interval.estimate:.2f} [{interval.low:.2f}, {interval.high:.2f}]; {row['seconds']:.1f} s"
    return text if row["max_coverage"] is None else f"{text}; coverage {row['max_coverage']:.2f}"


def document(rows: list[dict[str, Any]]) -> str:
    """Return the page: how to read it, how it was made, the table."""
    commands = []
    for episodes in sorted({row["episodes"] for row in rows}):
        there = {row["task"] for row in rows if row["episodes"] == episodes}
        tasks = " ".join(task for task in TASKS if task in there)
        commands.append(f"python scripts/expert_delay_table.py --tasks {tasks} --episodes {episodes}")
    newline = "\n"
    return f"""# Scripted experts against delay

Success of each task's scripted expert, without noise, when its observations are 0 to 1 s old (rounded to control steps;
until the first old observation exists, it sees the one of the reset). In each cell: success rate with its 95 % Wilson
interval, mean length of an episode, and for Push-T the mean of the highest coverage of each episode.

"The whole observation": everything the expert sees is old, its own pose too. A large delay then also disturbs its
feedback loop, even on a still scene. "The scene": the robot's own state is fresh and the rest is old. On a still scene
this costs nothing, so losses here are due only to the motion of the world.

```
{newline.join(commands)}
```

{table(rows)}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=100, help="per delay; seeds 0, 1, 2, ...")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("docs/results/expert_delay.md"))
    parser.add_argument("--work", type=Path, default=Path("outputs/expert_delay"))
    arguments = parser.parse_args()
    if arguments.episodes < 1:
        parser.error(f"--episodes must be at least 1, not {arguments.episodes}")

    arguments.work.mkdir(parents=True, exist_ok=True)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    try:
        for task in arguments.tasks:
            measure(task, arguments.episodes, arguments.processes, arguments.work)
    finally:
        rows = [row for task in TASKS for row in summarise(task, finished(task, arguments.work))]
        if rows:
            write_text(arguments.output, document(rows))
            print(f"{table(rows)}\nwritten to {arguments.output}")


if __name__ == "__main__":
    main()
