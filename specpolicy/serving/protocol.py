"""Contents of the messages.

server -> client, first    Metadata, a map
client -> server           an observation, {key: array}: one frame (...) per key, or all of the policy's (To, ...);
                           `reset`: true begins an episode (its `seed`: an integer), alone or with an observation;
                           `committed`, where the server `continues`: {`actions` (n, D), `count`, `way`}, see
                           `specpolicy.Committed`
server -> client           `actions` (T, D), `server_timing`, `policy_timing`; or {`reset`: true}
server -> client           a text frame: the error, in one line
server -> client, last     close code 1011 in place of an answer: inference has ended; the reason is in one line

The first action belongs to the newest frame; `n_action_steps` of them are to be executed before the next request.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from specpolicy.committed import WAYS, Committed
from specpolicy.control.chunk import Chunk, History
from specpolicy.errors import SpecpolicyError
from specpolicy.rates import parse_hz
from specpolicy.serving.frames import read_frames, read_table
from specpolicy.serving.scan import MOST_OBJECTS, Limits, ProtocolError

PORT = 8000
NAME = "specpolicy"
RESET, SEED, COMMITTED = "reset", "seed", "committed"
RESERVED = (RESET, SEED, COMMITTED)
MOST_COMMITTED = 4096  # actions
# Bounds on metadata: a robot keeps as many frames as the server tells it to.
COUNTS = {"n_obs_steps": 4096, "n_action_steps": 4096, "action_dim": 65536}
OTHER_PARTS, OTHER_LEVELS = 4096, 6  # of a request, for ignored keys that the policy does not observe, such as a prompt


@dataclass(frozen=True)
class Metadata:
    """A server's description of its policy. Servers of other projects send other fields, or none.

    Attributes:
        n_obs_steps: frames that a chunk is planned from.
        n_action_steps: actions to execute before the next request.
        observation: shape of one frame of each key; None if unknown.
        action_dim: numbers in an action; None if unknown.
        more: other fields, such as the name of the policy and its sampler.
        control_hz: control steps per second that the actions are made for; None if unknown.
        continues: whether a chunk can be drawn given committed actions.
        ways: those in which it can, see `specpolicy.Committed`; None if unknown.
    """

    n_obs_steps: int = 1
    n_action_steps: int = 1
    observation: Mapping[str, tuple[int, ...]] | None = None
    action_dim: int | None = None
    more: Mapping[str, Any] = field(default_factory=dict)
    control_hz: float | None = None
    continues: bool = False
    ways: tuple[str, ...] | None = None

    def as_message(self) -> dict[str, Any]:
        """Return the first frame."""
        shapes = {key: list(shape) for key, shape in (self.observation or {}).items()}
        ways = {} if self.ways is None else {"ways": list(self.ways)}
        return {
            **self.more,
            **ways,
            "server": NAME,
            "n_obs_steps": self.n_obs_steps,
            "n_action_steps": self.n_action_steps,
            "observation": shapes,
            "action_dim": self.action_dim,
            "control_hz": self.control_hz,
            "continues": self.continues,
        }

    @classmethod
    def from_message(cls, message: Any) -> "Metadata":
        """Read the first frame of a specpolicy server, or of another server with this protocol."""
        if not isinstance(message, dict):
            raise ProtocolError(f"the first message of a server is a map, this one is {type(message).__name__}")
        if message.get("server") != NAME:
            return cls(more=message)
        shapes = message.get("observation")
        if not isinstance(shapes, dict) or not all(_is_shape(shape) for shape in shapes.values()):
            raise ProtocolError("the server's metadata is not understood: `observation` is {key: shape of a frame}")
        for name, most in COUNTS.items():
            if type(number := message.get(name)) is not int or not 0 < number <= most:
                raise ProtocolError(
                    f"the server's metadata is not understood: `{name}` is a whole number from 1 to {most}"
                )
        n_obs_steps, n_action_steps, action_dim = (message[name] for name in COUNTS)
        more = {key: value for key, value in message.items() if key not in cls.__annotations__}
        observation = {key: tuple(shape) for key, shape in shapes.items()}
        try:
            hz = parse_hz(message.get("control_hz"), "`control_hz`")
        except SpecpolicyError as error:
            raise ProtocolError(f"the server's metadata is not understood: {error}") from None
        continues, ways = message.get("continues") is True, message.get("ways")
        if ways is not None and not (isinstance(ways, list) and all(isinstance(way, str) for way in ways)):
            raise ProtocolError("the server's metadata is not understood: `ways` is a list of names")
        known = None if ways is None else tuple(ways)
        return cls(n_obs_steps, n_action_steps, observation, action_dim, more, hz, continues, known)

    def same_policy(self, other: "Metadata") -> bool:
        """Whether a loop that began with this policy can continue with the other."""
        return replace(self, more={}) == replace(other, more={})


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, list) and all(type(size) is int and 0 < size < 2**31 for size in shape)


@dataclass(frozen=True)
class Request:
    """One message of a client.

    Attributes:
        reset: begin an episode.
        seed: of its random numbers; None leaves it to the server.
        frames: of each key (1, ...) or (To, ...); empty if no chunk is requested.
        committed: actions that are executed before the chunk can be used, or None.
    """

    reset: bool
    seed: int | None
    frames: History
    committed: Committed | None = None


def request_limits(shapes: Mapping[str, tuple[int, ...]], n_obs_steps: int) -> Limits:
    """Return the limits of the largest request for a policy, with each number of its frames in a separate list."""
    numbers = n_obs_steps * sum(math.prod(shape) for shape in shapes.values())
    levels = 2 + max((len(shape) for shape in shapes.values()), default=0)
    return Limits(parts=min(MOST_OBJECTS, OTHER_PARTS + 2 * numbers), depth=levels + OTHER_LEVELS)


def read_request(message: Any, shapes: Mapping[str, tuple[int, ...]], n_obs_steps: int) -> Request:
    """Check a client's message against the shapes of the policy's frames. Unknown keys are ignored.

    Raises:
        ProtocolError: one line, for the client.
    """
    if not isinstance(message, dict):
        raise ProtocolError(f"expected a map of observations, got {type(message).__name__}")
    reset, seed = message.get(RESET, False), message.get(SEED)
    if not isinstance(reset, bool | np.bool_):
        raise ProtocolError(f"`{RESET}` is true or false")
    if seed is not None:
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**63:
            raise ProtocolError(f"`{SEED}` is a whole number, 0 or more and below 2**63")
        seed = int(seed)
    if reset and not any(key in message for key in shapes):
        return Request(True, seed, {})
    missing = [key for key in shapes if key not in message]
    if missing:
        sent = ", ".join(sorted(str(key)[:60] for key in message if key not in RESERVED)[:20]) or "nothing"
        raise ProtocolError(f"the observation has no key '{missing[0]}' (sent: {sent}; needed: {', '.join(shapes)})")
    frames = {key: read_frames(key, message[key], shape, n_obs_steps) for key, shape in shapes.items()}
    if len({len(value) for value in frames.values()}) > 1:
        raise ProtocolError(f"send one frame of each key, or {n_obs_steps} frames of each")
    return Request(bool(reset), seed, frames, read_committed(message.get(COMMITTED)))


def committed_message(committed: Committed) -> dict[str, Any]:
    """Return committed actions as a client sends them."""
    return {"actions": committed.actions, "count": committed.count, "way": committed.way}


def read_committed(value: Any) -> Committed | None:
    """Check the committed actions of a client's message.

    Raises:
        ProtocolError: one line, for the client.
    """
    if value is None:
        return None
    if not isinstance(value, dict) or "actions" not in value or "count" not in value:
        raise ProtocolError(f"`{COMMITTED}` is a map with `actions` and `count`")
    actions = read_table(f"{COMMITTED}.actions", value["actions"], MOST_COMMITTED)
    try:
        return Committed(actions, value["count"], str(value.get("way", WAYS[0]))[:60])
    except SpecpolicyError as error:
        raise ProtocolError(f"`{COMMITTED}`: {error}") from None


def answer_message(chunk: Chunk, batch: int, server_timing: Mapping[str, float]) -> dict[str, Any]:
    """Return the answer to a request. `batch`: number of requests planned together."""
    policy_timing = {
        "infer_ms": 1e3 * chunk.seconds,
        "network_ms": 1e3 * chunk.network_seconds,
        "encode_ms": 1e3 * chunk.encode_seconds,
        "calls": chunk.calls,
        "rows": chunk.rows,
        "batch": batch,
    }
    return {"actions": chunk.actions, "server_timing": dict(server_timing), "policy_timing": policy_timing}


def timing(start: float, waited: float, before: float | None) -> dict[str, float]:
    """Return milliseconds: from the message to its answer, the part of it in the queue, and all of the previous
    answer."""
    timing = {"infer_ms": 1e3 * (time.perf_counter() - start), "queue_ms": 1e3 * waited}
    return timing if before is None else {**timing, "prev_total_ms": 1e3 * before}
