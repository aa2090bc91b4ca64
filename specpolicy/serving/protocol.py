"""What the messages say.

server -> client, first    Metadata, a map
client -> server           an observation, {key: array}: one frame (...) per key, or all of the policy's (To, ...);
                           `reset`: true begins an episode (its `seed`: an integer), alone or with an observation
server -> client           `actions` (T, D), `server_timing`, `policy_timing`; or {`reset`: true}
server -> client           a text frame: what was wrong with the request, or a traceback

The first action belongs to the newest frame; `n_action_steps` of them are to be executed before the next request.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from specpolicy.control.chunk import History
from specpolicy.serving.codec import ProtocolError

PORT = 8000
NAME = "specpolicy"
RESET, SEED = "reset", "seed"
RESERVED = (RESET, SEED)


@dataclass(frozen=True)
class Metadata:
    """What a server says of its policy. Servers of others say other things, or nothing.

    Attributes:
        n_obs_steps: frames that a chunk is planned from.
        n_action_steps: actions to execute before the next chunk is asked for.
        observation: shape of one frame of each key; None if the server does not say.
        action_dim: numbers in an action; None if the server does not say.
        more: whatever else it says, such as the name of the policy and its sampler.
    """

    n_obs_steps: int = 1
    n_action_steps: int = 1
    observation: Mapping[str, tuple[int, ...]] | None = None
    action_dim: int | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    def as_message(self) -> dict[str, Any]:
        """The first frame."""
        shapes = {key: list(shape) for key, shape in (self.observation or {}).items()}
        return {
            **self.more,
            "server": NAME,
            "n_obs_steps": self.n_obs_steps,
            "n_action_steps": self.n_action_steps,
            "observation": shapes,
            "action_dim": self.action_dim,
        }

    @classmethod
    def from_message(cls, message: Any) -> "Metadata":
        """Read the first frame of a server of ours, or of another that speaks the protocol."""
        if not isinstance(message, dict):
            raise ProtocolError(f"the first message of a server is a map, this one is {type(message).__name__}")
        if message.get("server") != NAME:
            return cls(more=message)
        try:
            shapes = {str(key): tuple(map(int, shape)) for key, shape in message["observation"].items()}
            own = int(message["n_obs_steps"]), int(message["n_action_steps"]), shapes, int(message["action_dim"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ProtocolError(f"the server's metadata is not understood ({type(error).__name__}: {error})") from None
        return cls(*own, more={key: value for key, value in message.items() if key not in cls.__annotations__})

    def same_policy(self, other: "Metadata") -> bool:
        """Whether a loop that began with the one can go on with the other."""
        return (self.n_obs_steps, self.n_action_steps, self.observation, self.action_dim) == (
            other.n_obs_steps,
            other.n_action_steps,
            other.observation,
            other.action_dim,
        )


@dataclass(frozen=True)
class Request:
    """One message of a client.

    Attributes:
        reset: an episode begins.
        seed: of its random numbers; None leaves it to the server.
        frames: of each key (1, ...) or (To, ...); empty if nothing is asked for.
    """

    reset: bool
    seed: int | None
    frames: History


def read_request(message: Any, shapes: Mapping[str, tuple[int, ...]], n_obs_steps: int) -> Request:
    """Check a client's message against the shapes of the policy's frames. Keys that it does not know are ignored.

    Raises:
        ProtocolError: one line, for the client.
    """
    if not isinstance(message, dict):
        raise ProtocolError(f"expected a map of observations, got {type(message).__name__}")
    reset, seed = message.get(RESET, False), message.get(SEED)
    if not isinstance(reset, bool | np.bool_):
        raise ProtocolError(f"`{RESET}` is true or false")
    if seed is not None and not (isinstance(seed, int) and 0 <= seed < 2**63):
        raise ProtocolError(f"`{SEED}` is a whole number, 0 or more")
    if reset and not any(key in message for key in shapes):
        return Request(True, seed, {})
    missing = [key for key in shapes if key not in message]
    if missing:
        sent = ", ".join(sorted(str(key)[:60] for key in message if key not in RESERVED)[:20]) or "nothing"
        raise ProtocolError(f"the observation has no key '{missing[0]}' (sent: {sent}; needed: {', '.join(shapes)})")
    frames = {key: _frames(key, message[key], shape, n_obs_steps) for key, shape in shapes.items()}
    if len({len(value) for value in frames.values()}) > 1:
        raise ProtocolError(f"send one frame of each key, or {n_obs_steps} frames of each")
    return Request(bool(reset), seed, frames)


def _frames(key: str, value: Any, shape: tuple[int, ...], n_obs_steps: int) -> np.ndarray:
    """The frames (1, ...) or (To, ...) of one key."""
    try:
        array = np.asarray(value)
    except ValueError:
        raise ProtocolError(f"'{key}' is not an array of numbers") from None
    if array.dtype.kind not in "biuf":
        raise ProtocolError(f"'{key}' has dtype {array.dtype}: expected numbers")
    shapes = {shape, (*shape[1:], shape[0])} if len(shape) == 3 else {shape}  # images may have their channels last
    if array.shape in shapes:
        array = array[None]
    elif array.shape[1:] not in shapes or len(array) != n_obs_steps:
        raise ProtocolError(
            f"'{key}' has shape {array.shape}: expected {shape}, or ({n_obs_steps}, ...) for all frames at once"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ProtocolError(f"'{key}' has values that are not finite")
    return array
