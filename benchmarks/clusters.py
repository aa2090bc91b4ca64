"""Episodes per minute by who plays them: measured on this machine, and simulated for machines that are not here.

python benchmarks/clusters.py measure OUT.json     plays push_t and lift; takes some minutes
python benchmarks/clusters.py simulate OUT.json    prints the tables of docs/clusters.md

Measured: `specpolicy evaluate` with 1 and 2 processes, each with its policy, and with a shared planner; then what the
simulation needs: seconds of a control step and of a reset, of a batch of chunks by its size, of writing an
episode's rows. Simulated: a queue of one server (the device) and many (the CPUs), with the lengths of the measured
episodes. A group of episodes asks for its chunks together, when its slowest is ready.
"""

import argparse
import csv
import dataclasses
import heapq
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np

TASKS = {"push_t": "checkpoints/push_t", "lift": "checkpoints/lift"}
SAMPLER = "ddim"
WAYS = {  # {name: settings}
    "1 process": ["workers=1"],
    "2 processes": ["workers=2"],
    "2 processes, batch=3": ["workers=2", "batch=3"],
    "planner, 1 process, batch=3": ["cluster.planners=1", "cluster.workers=1", "batch=3"],
    "planner, 2 processes, batch=3": ["cluster.planners=1", "cluster.workers=2", "batch=3"],
}
ROWS = (1, 2, 4, 8, 16, 32, 64)


@dataclasses.dataclass(frozen=True)
class Costs:
    """What an episode is made of.

    Attributes:
        step, reset, record: seconds of a control step, of a reset, and of writing an episode's rows.
        first, more: seconds of a batch of one chunk, and of each further chunk in it.
        every: control steps from one chunk to the next.
        lengths: control steps of episodes, to draw from.
    """

    step: float
    reset: float
    record: float
    first: float
    more: float
    every: int
    lengths: tuple[int, ...]


def own_policies(costs: Costs, processes: int, episodes: int, seed: int = 0) -> float:
    """Return episodes per minute of processes with a policy each; one process writes the rows of all."""
    lengths = np.random.default_rng(seed).choice(costs.lengths, episodes)
    chunks = -(-lengths // costs.every)
    seconds = costs.reset + lengths * costs.step + chunks * costs.first
    free, written = [0.0] * processes, 0.0
    ends = []
    for one in seconds:
        ends.append(heapq.heappop(free) + one)
        heapq.heappush(free, ends[-1])
    for end in sorted(ends):
        written = max(written, end) + costs.record
    return 60 * episodes / written


def shared_planner(costs: Costs, processes: int, batch: int, teams: int, blocks: int, seed: int = 0) -> float:
    """Return episodes per minute of one planner and processes with the worlds of its teams.

    Each team plays blocks of 4 batches (of one episode where batch is 1), `batch` episodes side by side, dealt out
    evenly to the processes.
    """
    rng = np.random.default_rng(seed)
    device, left, played, end = 0.0, blocks, 0, 0.0
    cpus = np.zeros(processes)
    # Teams by the moment at which their chunks are there; steps left at the seats of each; episodes left in its block.
    waiting = [(0.0, team) for team in range(teams)]
    seats: list[list[int]] = [[] for _ in range(teams)]
    jobs: list[list[int]] = [[] for _ in range(teams)]
    while waiting:
        moment, team = heapq.heappop(waiting)
        if not seats[team] and not jobs[team]:
            if not left:
                continue
            left -= 1
            jobs[team] = list(rng.choice(costs.lengths, 4 * batch if batch > 1 else 1))
            played += len(jobs[team])
        work = np.zeros(processes)
        moved = []
        for seat in range(max(len(seats[team]), min(batch, len(seats[team]) + len(jobs[team])))):
            owner = (team * batch + seat) % processes
            steps = seats[team][seat] if seat < len(seats[team]) else 0
            work[owner] += costs.step * min(costs.every, steps)
            steps -= costs.every
            if steps <= 0 and jobs[team]:
                steps = int(jobs[team].pop())
                work[owner] += costs.reset
            if steps > 0:
                moved.append(steps)
        seats[team] = moved
        busy = work > 0
        cpus[busy] = np.maximum(cpus[busy], moment) + work[busy]
        ready = max([moment, *cpus[busy]])
        if moved:
            device = max(device, ready) + costs.first + costs.more * (len(moved) - 1)
            ready = device
        end = max(end, ready)
        heapq.heappush(waiting, (ready, team))
    return 60 * played / max(end, played * costs.record)


def play(task: str, settings: list[str], episodes: int) -> tuple[float, list[int]]:
    """Return episodes per minute, the start of processes included, and the episodes' lengths."""
    from specpolicy.cli import main
    from specpolicy.evaluation import runner

    whole, taken = runner.play, []

    def timed(*arguments, **options):
        begin = time.perf_counter()
        whole(*arguments, **options)
        taken.append(time.perf_counter() - begin)

    with tempfile.TemporaryDirectory() as directory:
        common = [f"task={task}", f"policy={TASKS[task]}", f"samplers=[{SAMPLER}]", "engine=eager", "videos=0"]
        runner.play = timed
        try:
            assert main(["evaluate", *common, f"episodes={episodes}", f"output={directory}/out", *settings]) == 0
        finally:
            runner.play = whole
        with open(f"{directory}/out/episodes.csv") as file:
            lengths = [int(row["length"]) for row in csv.DictReader(file)]
    return 60 * episodes / taken[0], lengths


def costs_of(task: str, lengths: list[int]) -> Costs:
    """Measure what the simulation needs, in this process and on one thread, in seconds of its processor.

    So other work on the machine counts little. Writing rows is measured by the clock, as it waits for the disk.
    """
    import torch

    from specpolicy import load_policy
    from specpolicy.cli.configuration import compose_verb
    from specpolicy.control.chunk import history_of
    from specpolicy.evaluation.results import Table
    from specpolicy.tasks import make_task_env

    torch.set_num_threads(1)
    policy = load_policy(TASKS[task])
    env = make_task_env(compose_verb("evaluate", [f"task={task}", "policy=none"]).task)
    resets, steps = [], []
    for seed in range(4):
        begin = time.process_time()
        observation, _ = env.reset(seed=seed)
        resets.append(time.process_time() - begin)
        env.action_space.seed(seed)
        for _ in range(40):
            begin = time.process_time()
            observation, *_ = env.step(env.action_space.sample())
            steps.append(time.process_time() - begin)
    history = history_of([observation] * policy.n_obs_steps)
    taken = {}
    for rows in ROWS:
        stacked = {key: np.stack([history[key]] * rows) for key in policy.observation_keys}
        times = []
        for _ in range(4):
            generators = [torch.Generator().manual_seed(row) for row in range(rows)]
            begin = time.process_time()
            policy.predict(stacked, SAMPLER, generators)
            times.append(time.process_time() - begin)
        taken[rows] = float(np.median(times[1:]))
    more, first = np.polyfit(np.array(ROWS) - 1, [taken[rows] for rows in ROWS], 1)
    with tempfile.TemporaryDirectory() as directory:
        tables = [Table(Path(directory) / f"{name}.csv", ("a", "b")) for name in ("episodes", "chunks")]
        begin = time.perf_counter()
        for number in range(50):
            for table in tables:
                table.append([{"a": number, "b": "x" * 400}])
        record = (time.perf_counter() - begin) / 50
    print(task, "seconds of a batch of chunks by its size:", {rows: round(value, 4) for rows, value in taken.items()})
    median = float(np.median(steps)), float(np.median(resets))
    return Costs(*median, record, max(float(first), taken[1]), float(more), policy.n_action_steps, tuple(lengths))


def measure(path: Path, episodes: int) -> None:
    """Play and measure; write the figures, those of each task as soon as they are there."""
    found: dict[str, dict] = {}
    for task in TASKS:
        rates, lengths = {}, []
        for name, settings in WAYS.items():
            load = os.getloadavg()[0]
            rate, lengths = play(task, settings, episodes)
            rates[name] = {"per_minute": round(rate, 1), "load_before": round(load, 1)}
            print(task, name, rates[name], flush=True)
        found[task] = {"episodes": episodes, "rates": rates, "costs": dataclasses.asdict(costs_of(task, lengths))}
        path.write_text(json.dumps(found, indent=1) + "\n")


def simulate(path: Path, call: float, calls: int) -> None:
    """Print what other machines would do, in episodes per minute.

    Args:
        path: measured figures.
        call: assumed seconds of a network call on a GPU, for up to 64 rows.
        calls: network calls of a chunk.
    """
    tasks = json.loads(path.read_text())
    columns = {}
    for task, found in tasks.items():
        costs = Costs(**{**found["costs"], "lengths": tuple(found["costs"]["lengths"])})
        print(
            f"{task}: {costs.step * 1e3:.1f} ms a step, {costs.reset * 1e3:.1f} ms a reset, {costs.first * 1e3:.0f} "
            f"ms a chunk, {costs.more * 1e3:.1f} ms each further one of a batch, {costs.record * 1e3:.1f} ms to write "
            f"a row, {np.mean(costs.lengths):.0f} steps an episode"
        )
        gpu = dataclasses.replace(costs, first=calls * call, more=0.0)
        full = dataclasses.replace(costs, first=(costs.first + 15 * costs.more) / 16)  # a sixteenth of a full batch
        rows = {
            "1 process": own_policies(costs, 1, 400),
            "2 processes": own_policies(costs, 2, 400),
            "16 processes": own_policies(costs, 16, 3200),
            "16 processes, batch=16 in each": own_policies(full, 16, 3200),
            "64 nodes of 16 processes": own_policies(costs, 1024, 200_000),
            "64 nodes of 16 processes, rows written at no cost": own_policies(
                dataclasses.replace(costs, record=0.0), 1024, 200_000
            ),
        }
        for name, device in (("planner on a CPU", costs), ("planner on a GPU", gpu)):
            for batch in (1, 16, 32, 64):
                teams = max(2, -(-15 // batch))
                blocks = 9600 // (4 * batch) if batch > 1 else 800
                rows[f"{name}, 15 processes, batch={batch}"] = shared_planner(device, 15, batch, teams, blocks)
        columns[task] = rows
    print(f"| | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for name in next(iter(columns.values())):
        print(f"| {name} | {' | '.join(f'{rows[name]:,.0f}' for rows in columns.values())} |")


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "simulate"))
    parser.add_argument("path", type=Path)
    parser.add_argument("--episodes", type=int, default=24, help="of each way and task")
    parser.add_argument("--call", type=float, default=0.003, help="assumed seconds of a call on a GPU")
    parser.add_argument("--calls", type=int, default=10, help="calls of a chunk")
    options = parser.parse_args()
    if options.what == "measure":
        measure(options.path, options.episodes)
    else:
        simulate(options.path, options.call, options.calls)


if __name__ == "__main__":
    main()
