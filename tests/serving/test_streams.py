"""A seeded episode draws the same chunks whatever becomes of those that are planned with it."""

import asyncio
import threading

import numpy as np
import pytest
import torch

from specpolicy import SpecpolicyError
from specpolicy.control.chunk import Chunk
from specpolicy.policy import DiffusionPolicy, TokenPolicy
from specpolicy.serving import PolicyService
from specpolicy.serving.inference import Inference
from specpolicy.serving.metrics import Metrics
from specpolicy.serving.streams import rewinder

TOKENS = {
    "network": {"kind": "masked_transformer", "n_layer": 1, "n_head": 2, "n_emb": 16},
    "tokens": {"kind": "uniform", "bins": 8},
}
HISTORIES = [{"position": np.full((2, 2), 0.1 * i), "object": np.full((2, 3), -0.1 * i)} for i in range(3)]
BAD = {"position": np.full((2, 2), 1e38), "object": np.full((2, 3), 1e38)}  # infinite once it is normalised


class Held(PolicyService):
    """While its gate is closed inference stands still, so that those who wait become one batch.

    Fault: what it does, once everything has been drawn, to a batch in which `BAD` is.
    """

    def __init__(self, policy, sampler, fault):
        super().__init__(policy, sampler)
        self.fault, self.gate, self.batches = fault, threading.Event(), []

    def plan(self, histories, streams):
        self.gate.wait(20)
        self.batches.append(len(histories))
        bad = [history is BAD for history in histories]
        if self.fault == "real":
            return super().plan(histories, streams)
        chunks = super().plan([HISTORIES[0] if one else h for one, h in zip(bad, histories, strict=True)], streams)
        if not any(bad) or self.fault is None:
            return chunks
        if self.fault == "raise":
            raise RuntimeError("a policy fell over")
        if self.fault == "explain":
            raise SpecpolicyError("a policy cannot see this")
        if self.fault == "memory":
            raise MemoryError
        if self.fault == "few":
            return chunks[:-1]
        return [Chunk(chunk.actions * np.nan) if one else chunk for one, chunk in zip(bad, chunks, strict=True)]


async def _episode(service, neighbours):
    """The chunks of an episode with seed 5; every time, so many neighbours fail in its batch."""
    inference = Inference(service, Metrics(), max_batch=8)
    stream, others = service.begin(5), [service.begin(seed) for seed in range(neighbours)]
    chunks = []
    try:
        for history in HISTORIES:
            while inference.busy_seconds() > 0:  # at what was before
                await asyncio.sleep(0.001)
            service.gate.clear()
            plug = asyncio.create_task(inference.plan(HISTORIES[0], service.begin(99)))
            while inference.busy_seconds() == 0:
                await asyncio.sleep(0.001)
            failing = [asyncio.create_task(inference.plan(BAD, one)) for one in others[:1]]
            own = asyncio.create_task(inference.plan(history, stream))
            failing += [asyncio.create_task(inference.plan(BAD, one)) for one in others[1:]]
            gone = asyncio.create_task(inference.plan(BAD, service.begin(7), lambda: False))  # its client has left
            await asyncio.sleep(0)
            service.gate.set()
            await plug
            chunks.append((await own).chunk.actions)
            for task in failing:
                with pytest.raises((RuntimeError, SpecpolicyError, MemoryError)):
                    await task
            with pytest.raises(asyncio.CancelledError):
                await gone
        # A request that has failed has drawn nothing either.
        again = [(await inference.plan(HISTORIES[0], one)).chunk.actions for one in others]
    finally:
        inference.close()
    return chunks, again


@pytest.fixture
def make_service(policy_config):
    """Makes the service of a small policy of so many steps, with a fault."""
    torch.manual_seed(0)
    quick = {**policy_config, "chain": {"train_steps": 4, "steps": 4}}
    tokens = {**{key: value for key, value in policy_config.items() if key not in ("network", "chain")}, **TOKENS}
    policies = {"diffusion": DiffusionPolicy.from_config(quick), "tokens": TokenPolicy.from_config(tokens)}
    return lambda sampler, fault=None: Held(
        policies["tokens" if sampler == "confidence" else "diffusion"], sampler, fault
    )


CASES = [("ddpm", fault) for fault in ("real", "raise", "explain", "memory", "few", "nan")]
CASES += [("block", "real"), ("block", "raise"), ("confidence", "raise"), ("confidence", "nan")]


@pytest.mark.parametrize("sampler, fault", CASES)
def test_a_seeded_episode_is_the_same_whether_or_not_neighbours_fail(make_service, sampler, fault):
    service = make_service(sampler, fault)
    alone, _ = asyncio.run(_episode(make_service(sampler), 0))
    beside, again = asyncio.run(_episode(service, 2))
    assert max(service.batches) == 3  # they were in its batch, one before and one after
    for one, other in zip(alone, beside, strict=True):
        np.testing.assert_array_equal(one, other)
    fresh = make_service(sampler)
    fresh.gate.set()
    for seed, actions in enumerate(again):
        np.testing.assert_array_equal(fresh.plan([HISTORIES[0]], [fresh.begin(seed)])[0].actions, actions)


def test_streams_of_torch_and_numpy_go_back_and_others_are_left_alone():
    torchs, numpys = torch.Generator().manual_seed(1), np.random.default_rng(1)
    rewind = rewinder([torchs, "no stream", numpys, 7])
    first = torch.randn(3, generator=torchs), numpys.normal(size=3)
    for _ in range(2):
        rewind()
        assert torch.equal(torch.randn(3, generator=torchs), first[0])
        np.testing.assert_array_equal(numpys.normal(size=3), first[1])
