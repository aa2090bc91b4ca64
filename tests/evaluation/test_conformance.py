"""Our harness keeps its promises; a harness with a known defect fails at the promise that it breaks."""

import dataclasses
import shutil

import numpy as np
import pytest

from specpolicy import SpecpolicyError
from specpolicy.cluster import Processes
from specpolicy.evaluation import merging, runner, settings
from specpolicy.evaluation.conditions import Condition
from specpolicy.evaluation.conformance import Harness, Nonconforming, Rollout, conform
from specpolicy.evaluation.player import Setup
from specpolicy.evaluation.results import Results
from specpolicy.evaluation.runner import Evaluation
from specpolicy.evaluation.shards import Shard
from specpolicy.evaluation.tapes import read_tape, tape_path

SEEDS = [3, 4, 5, 6, 7]


class Broken(Exception):
    """Stands for a kill."""


class Ours:
    """The ways of specpolicy's harness on the task drift. It plays a range of seeds, so others are cut out of one."""

    def __init__(self, task, policy, directory):
        setup = Setup(task, policy, {"ddim-4": {"name": "ddim", "steps": 4, "eta": 0.0}}, max_seconds=2.0)
        self.evaluation = Evaluation(setup, (Condition("ddim-4"),), 1, 0, record_actions=True)
        self.directory = directory

    def play(self, seeds, workers=0, batch=1, shard=None, after=None, output=None):
        setup = dataclasses.replace(self.evaluation.setup, batch=batch)
        evaluation = dataclasses.replace(
            self.evaluation, setup=setup, episodes=len(seeds), seed=min(seeds), shard=shard
        )
        assert sorted(seeds) == list(evaluation.seeds)
        output = output or self.fresh()
        played = []

        def on_episode(episode):
            played.append(episode)
            if len(played) == after:
                raise Broken

        results = settings.claim(evaluation, runner.check(evaluation), output)
        if shard is not None:
            merging.write_plan(output, merging.Plan(evaluation, {"name": "paused"}, (), 0.05, {}))
        try:
            runner.play(evaluation, results, output, Processes(workers), on_episode)
        except Broken:
            return self.play(seeds, workers, batch, output=output)
        return self.rollouts(output)

    def sharded(self, seeds, count):
        output = self.fresh()
        for number in range(count, 0, -1):
            shard = Shard(number, count)
            self.play(seeds, shard=shard, output=shard.directory(output))
        parts = [merging.read_part(Shard(number, count).directory(output)) for number in range(1, count + 1)]
        merging.check_parts(parts)
        merging.join(parts, output)
        return self.rollouts(output)

    def rollouts(self, output):
        found = []
        for row in Results(output).episodes.rows:
            tape = read_tape(tape_path(output, row["condition"], int(row["seed"])))
            scene = {key: values[0] for key, values in tape.observations.items()}
            kept = {
                name: number(value) for name, value in row.items() if "seconds_" not in name and "_share" not in name
            }
            found.append(Rollout(int(row["seed"]), scene, kept))
        return found

    def fresh(self):
        shutil.rmtree(self.directory / "run", ignore_errors=True)
        return self.directory / "run"

    def harness(self):
        return Harness(
            serial=self.play,
            parallel=lambda seeds: self.play(seeds, workers=2),
            batched=lambda seeds: self.play(seeds, batch=2),
            sharded=self.sharded,
            resumed=lambda seeds, after: self.play(seeds, after=after),
            rounding=1e-3,
        )


def number(text):
    """A figure of episodes.csv as a number, whole numbers and names as text."""
    try:
        return float(text) if "." in text else text
    except ValueError:
        return text


def test_ours_conforms(drift_task, drift_policy, tmp_path):
    task = {**drift_task, "kwargs": {"scatter": 0.1}}
    made = conform(Ours(task, drift_policy, tmp_path).harness(), SEEDS)
    assert made == ["scene", "one seed", "rows", "parallel", "batched", "shards", "resume"]


class World:
    """A point that walks at random until it is a step away from where it began. Its generator may live too long."""

    def __init__(self):
        self.source = np.random.default_rng(0)

    def reset(self, seed=None):
        if seed is not None:
            self.source = np.random.default_rng(seed)
        self.place, self.steps = self.source.normal(), 0
        self.began = self.place
        return {"place": self.place}

    def step(self, action):
        self.place += action + self.source.normal(0, 0.3)
        self.steps += 1
        return abs(self.place - self.began) > 1


def walk(world, seed, reset_seed=None, source=None):
    """One episode, whose policy draws from its own generator unless another is given."""
    scene = world.reset(seed if reset_seed is None else reset_seed)
    own = np.random.default_rng(seed) if source is None else source
    while not world.step(own.normal(0, 0.1)):
        pass
    return Rollout(seed, scene, {"length": world.steps, "return": float(world.place), "success": True})


def right(seeds):
    return [walk(World(), seed) for seed in seeds]


def right_cut(seeds, cut):
    return right(seeds)


SOUND = Harness(right, right, right, right_cut, right_cut)


def seeded_once(seeds):
    """Seeds the world for the first episode, and lets its generator run on."""
    world = World()
    world.reset(seeds[0])
    return [walk_on(world, seed, number == 0) for number, seed in enumerate(seeds)]


def walk_on(world, seed, first):
    if first:
        return walk(world, seed)
    scene = world.reset()
    while not world.step(0.0):
        pass
    return Rollout(seed, scene, {"length": world.steps, "return": float(world.place), "success": True})


def one_policy_generator(seeds):
    """All episodes draw from one generator of the policy."""
    source = np.random.default_rng(0)
    return [
        walk(World(), seed, source=source if number else np.random.default_rng(seed))
        for number, seed in enumerate(seeds)
    ]


def resets_itself(seeds):
    """Two worlds side by side; the one that ends first goes on with whatever scene comes next, under the next seed."""
    worlds, begun, left, found = [World(), World()], {}, list(seeds), []
    for world in worlds:
        seed = left.pop(0)
        begun[world] = seed, world.reset(seed)
    while begun:
        for world, (seed, scene) in list(begun.items()):
            if world.step(0.0):
                found.append(Rollout(seed, scene, {"length": world.steps}))
                del begun[world]
                if left:
                    begun[world] = left.pop(0), world.reset()
    return found


def first_to_end(seeds):
    """Starts one episode more than it was asked for, and keeps those that end first."""
    more = right([*seeds, max(seeds) + 1])
    return sorted(more, key=lambda rollout: rollout.row["length"])[: len(seeds)]


def shards_count_from_zero(seeds, count):
    """Every shard begins at the first seed."""
    return right(seeds) if count == 1 else [*right(seeds[: len(seeds) // 2]), *right(seeds[: -(-len(seeds) // 2)])]


def shards_seed_the_policy_by_position(seeds, count):
    found = [right(seeds[number::count]) for number in range(count)]
    if count > 1:
        found[1] = [
            walk(World(), seed, source=np.random.default_rng(number)) for number, seed in enumerate(seeds[1::count])
        ]
    return [rollout for shard in found for rollout in shard]


def resumes_with_a_new_generator(seeds, after):
    source = np.random.default_rng(99)
    return [*right(seeds[:after]), *(walk(World(), seed, source=source) for seed in seeds[after:])]


def plays_one_again(seeds, after):
    return [*right(seeds[:after]), *right(seeds[after - 1 :])]


def rounds(seeds):
    return [dataclasses.replace(one, row={**one.row, "return": one.row["return"] * (1 + 1e-6)}) for one in right(seeds)]


@pytest.mark.parametrize(
    "defect, check",
    (
        ({"serial": seeded_once}, "scene"),
        ({"serial": lambda seeds: [walk(World(), seed, reset_seed=seed // 2) for seed in seeds]}, "scene"),
        ({"serial": lambda seeds: right(sorted(seeds)[:-1] if len(seeds) > 1 else seeds)}, "one seed"),
        ({"serial": one_policy_generator}, "rows"),
        ({"parallel": first_to_end}, "parallel"),
        ({"parallel": lambda seeds: right([*seeds, seeds[0]])}, "parallel"),
        ({"batched": resets_itself}, "batched"),
        ({"batched": one_policy_generator}, "batched"),
        ({"batched": rounds, "rounding": 1e-9}, "batched"),
        ({"sharded": shards_count_from_zero}, "shards"),
        ({"sharded": shards_seed_the_policy_by_position}, "shards"),
        ({"resumed": resumes_with_a_new_generator}, "resume"),
        ({"resumed": plays_one_again}, "resume"),
    ),
)
def test_a_defect_fails_the_check_of_its_promise(defect, check):
    assert len(conform(SOUND, SEEDS)) == 7
    with pytest.raises(Nonconforming) as caught:
        conform(dataclasses.replace(SOUND, **defect), SEEDS)
    assert caught.value.check == check, str(caught.value)


def test_rounding_is_allowed_where_it_is_declared():
    assert "batched" in conform(dataclasses.replace(SOUND, batched=rounds, rounding=1e-5), SEEDS)
    with pytest.raises(Nonconforming, match="parallel"):
        conform(dataclasses.replace(SOUND, parallel=rounds, rounding=1e-5), SEEDS)


def test_seeds_that_cannot_tell():
    for seeds, message in (([1, 2], "three seeds"), ([1, 2, 3, 3], "each once")):
        with pytest.raises(SpecpolicyError, match=message):
            conform(SOUND, seeds)
    still = lambda seeds: [dataclasses.replace(one, row={"length": 9}) for one in right(seeds)]  # noqa: E731
    with pytest.raises(SpecpolicyError, match="same step"):
        conform(Harness(still), SEEDS)
    assert conform(Harness(right), SEEDS) == ["scene", "one seed", "rows"]
    unknown = lambda seeds: [dataclasses.replace(one, row={"success": True}) for one in right(seeds)]  # noqa: E731
    with pytest.raises(SpecpolicyError, match="seed 3 lacks 'length'"):
        conform(Harness(unknown), SEEDS)


def with_arrays(seeds, factor=1.0):
    """As other harnesses say it: a scene within a scene, and figures as NumPy's numbers and arrays."""
    found = []
    for one in right(seeds):
        total = np.float32(one.row["return"] * factor)
        row = {**one.row, "return": total, "ends": np.array([total, 0.0]), "nothing": np.float32("nan")}
        found.append(Rollout(one.seed, {"robot": {"place": np.array([one.scene["place"]])}}, row))
    return found


def test_scenes_within_scenes_and_numbers_of_numpy():
    sound = Harness(with_arrays, batched=lambda seeds: with_arrays(seeds, 1 + 1e-6), rounding=1e-5)
    assert conform(sound, SEEDS) == ["scene", "one seed", "rows", "batched"]
    with pytest.raises(Nonconforming, match="batched: seed 3 has return="):
        conform(dataclasses.replace(sound, rounding=1e-8), SEEDS)
    alike = lambda seeds: [dataclasses.replace(one, scene={"robot": {"place": 0.0}}) for one in right(seeds)]  # noqa: E731
    with pytest.raises(Nonconforming, match="the same scene"):
        conform(Harness(alike), SEEDS)
