"""Episodes whose worlds are in other processes than the policy, which draws the chunks for all of them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from specpolicy.cluster import Work
from specpolicy.cluster.seats import Seat, do_at
from specpolicy.evaluation.lockstep import in_lockstep
from specpolicy.evaluation.planners import PolicyPlanner
from specpolicy.evaluation.player import Job, Played, Player, Setup
from specpolicy.evaluation.together import Known, Member, Players, draw, draw_alone
from specpolicy.samplers.base import Sample, SampleStatistics


def work_of(setup: Setup) -> Work:
    """Return how blocks of episodes are played, wherever that is."""
    return Work(Players, setup, SharedPlayers, Worlds, replace(setup, policy=""), setup.batch, _name)


def _name(block: Sequence[Job]) -> str:
    seeds = sorted(job.seed for job in block)
    which = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"
    return f"{block[0].condition.label}, {which}"


class SharedPlayers:
    """Plays blocks of episodes at seats in other processes, with one policy; several blocks at once in threads.

    The episodes are those of `Players`, to the bit: the same ones share a batch. While chunks are drawn for one block,
    the worlds of the others move on.

    Args:
        setup: of the episodes.
        teams: seats, `setup.batch` in each team.
    """

    def __init__(self, setup: Setup, teams: Sequence[Sequence[Seat]]):
        self._player = Player(setup)
        self._free: queue.SimpleQueue[Sequence[Seat]] = queue.SimpleQueue()
        for team in teams:
            self._free.put(team)
        self._drawing = threading.Lock()  # one at a time: a device is not faster with two

    def __call__(self, block: Sequence[Job]) -> list[Played]:
        """Play the episodes of a block, all of one condition."""
        with self._drawing:
            planner = self._player.planner(block[0].condition)
        known = Known.of(planner) if isinstance(planner, PolicyPlanner) else None  # worlds have experts of their own
        together = draw if len(block) > 1 else draw_alone

        def answer(questions: list[Any]) -> list[Sample]:
            assert isinstance(planner, PolicyPlanner)
            with self._drawing:
                return together(planner, questions)

        team = self._free.get()
        found = in_lockstep(block, len(team), lambda seat, job, ask: _played(team[seat], job, known, ask), answer)
        self._free.put(team)
        return found

    def close(self) -> None:
        """Close the environment that the planner was warmed up with."""
        self._player.close()


def _played(seat: Seat, job: Job, known: Known | None, ask: Callable[[Any], Sample]) -> Played:
    """Play an episode at a seat. Its random numbers stay here, where they are drawn."""
    generator = torch.Generator().manual_seed(job.seed)

    def answer(question: Any) -> tuple[Any, ...]:
        observation, committed = question
        return _sent(ask((observation, generator, committed)))

    return do_at(seat, (job, known), answer)


class Worlds:
    """The environments of one process, one for each seat; the chunks of their episodes are drawn elsewhere."""

    def __init__(self, setup: Setup):
        self._setup = setup
        self._making = threading.Lock()  # simulators are not made by several threads at once
        self._players: dict[int, Player] = {}

    def __call__(self, seat: int, job: tuple[Job, Known | None], ask: Callable[[Any], Any]) -> Played:
        """Play one episode."""
        episode, known = job
        with self._making:
            if seat not in self._players:
                self._players[seat] = Player(self._setup)
                self._players[seat].prepare()
        if known is None:
            return self._players[seat](episode)

        def drawn(question: Any) -> Sample:
            observation, _, committed = question
            return _received(ask(({key: np.asarray(value) for key, value in observation.items()}, committed)))

        return self._players[seat](episode, planner=Member(known, drawn))

    def close(self) -> None:
        """Close the environments."""
        for player in self._players.values():
            player.close()


def _sent(sample: Sample) -> tuple[Any, ...]:
    """Return a chunk and its cost as plain values; tensors would travel in shared memory."""
    stats = sample.stats
    times = (stats.seconds, stats.network_seconds, stats.encode_seconds)
    return sample.actions.cpu().numpy(), int(stats.calls[0]), int(stats.rows[0]), times


def _received(sent: tuple[Any, ...]) -> Sample:
    actions, calls, rows, (seconds, network, encode) = sent
    counts = torch.tensor([calls]), torch.tensor([rows])
    stats = SampleStatistics(*counts, seconds=seconds, network_seconds=network, encode_seconds=encode)
    return Sample(torch.from_numpy(actions), stats)
