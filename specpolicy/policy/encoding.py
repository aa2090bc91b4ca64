"""From an observation to the condition of the denoiser: checked, normalised, encoded once."""

import hashlib
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from specpolicy.engines import Beside, FrameEngine, make_frame_engine
from specpolicy.errors import SpecpolicyError
from specpolicy.fingerprints import state_of
from specpolicy.images import is_image
from specpolicy.networks import ImageEncoder, LowDimEncoder
from specpolicy.policy.frame_cache import FrameCache, frame_name
from specpolicy.policy.normaliser import Normaliser
from specpolicy.policy.observations import Observation, checked_frames, network_frames
from specpolicy.tuning import now

APART = 8  # histories whose images are encoded one by one; those of more are encoded together, for throughput


class Encoding:
    """The normaliser and the encoder of a policy, as it uses them.

    Up to `APART` histories, each image is encoded alone, and not again if it was encoded lately: the condition is the
    same to the last bit. In larger batches images are encoded together, by torch itself, which rounds differently;
    on an engine for CPUs they are encoded one by one, too, which is faster there.

    Attributes:
        cache: features of the images that were encoded lately.
        engines: run the encoder, by camera; none for torch itself.
    """

    def __init__(
        self, encoder: LowDimEncoder, normaliser: Normaliser, engines: Mapping[str, FrameEngine] | None = None
    ):
        self.encoder, self.normaliser, self.engines = encoder, normaliser, engines or {}
        self.cache = FrameCache()

    def on_engine(self, name: str) -> "Encoding":
        """Return the same encoding, weights shared, whose encoder runs on an engine. One without weights stays as it
        is.

        Raises:
            SpecpolicyError: see `FrameEngine`.
        """
        engines: dict[str, FrameEngine] = {}
        made: dict[int, FrameEngine | None] = {}
        if isinstance(self.encoder, ImageEncoder):
            for key in self.encoder.cameras:
                encoder = self.encoder.of_camera(key)
                if id(encoder) not in made:
                    device = next(encoder.parameters()).device
                    seen = encoder.prepared(torch.zeros(1, *_sides(self.encoder.shapes[key]), device=device))
                    made[id(encoder)] = make_frame_engine(name, encoder.after_preparation(), seen.shape[1:])
                engine = made[id(encoder)]
                if engine is not None:
                    engines[key] = engine
        return Encoding(self.encoder, self.normaliser, engines)

    def where_possible(self, name: str) -> "Encoding":
        """Return the same encoding on an engine; by torch where the engine cannot express the encoder."""
        try:
            return self.on_engine(name)
        except SpecpolicyError:
            return self.on_engine("eager")

    def beside(self, device: torch.device) -> Beside | None:
        """Return what `engine=auto` counts for encoding an observation; None without images, where it takes nothing."""
        if not self.sees:
            return None
        shapes = [(name, list(value.shape)) for name, value in self.encoder.state_dict().items()]
        about = hashlib.sha256(f"{shapes} {self.encoder.shapes} {self.encoder.n_obs_steps}".encode()).hexdigest()[:32]
        return Beside(about, lambda name: self.where_possible(name).seconds(device))

    def __call__(self, observation: Observation, device: torch.device) -> Tensor:
        """Return the condition; see `Policy.encode`."""
        frames = self._checked(observation)
        # In training an encoder may draw random numbers, or look at all images of a batch together.
        apart = isinstance(self.encoder, ImageEncoder) and not self.encoder.training
        most = math.inf if self.engines and device.type == "cpu" else APART
        if not apart or len(frames[self.encoder.keys[0]]) > most:
            return self.encoder({key: self._normalised(key, value, device) for key, value in frames.items()})
        state = None if torch.is_grad_enabled() else state_of((self.encoder, self.normaliser))
        return self.encoder.joined({key: self._features(key, value, device, state) for key, value in frames.items()})

    @property
    def sees(self) -> bool:
        """Whether the policy sees images."""
        return isinstance(self.encoder, ImageEncoder)

    @torch.inference_mode()
    def seconds(self, device: torch.device, turns: int = 5) -> float:
        """Return the median seconds of encoding one observation all of whose frames are new, measured now."""
        source = torch.Generator().manual_seed(0)
        history = {key: torch.rand(1, *self.frame_shape(key), generator=source) for key in self.encoder.keys}
        history |= {key: torch.zeros_like(frames) for key, frames in history.items() if self._is_text(key)}  # tokens
        taken = []
        for _ in range(turns + 1):  # the first one warms up
            self.cache.clear()
            begin = time.perf_counter()
            self(history, device)
            taken.append(now(device) - begin)
        self.cache.clear()
        return statistics.median(taken[1:])

    def frame_shape(self, key: str) -> tuple[int, ...]:
        """Return the shape of one observation's frames of a key, the number of frames first."""
        return (self.encoder.n_obs_steps, *_sides(self.encoder.shapes[key]))

    def _checked(self, observation: Observation) -> dict[str, Tensor]:
        """Return the frames (B, To, ...) of each key as they are, of one batch size."""
        if not isinstance(observation, Mapping):
            raise SpecpolicyError(
                f"the observation is a {type(observation).__name__}: give a mapping {{key: frames}}, here of "
                f"{', '.join(self.encoder.keys)}"
            )
        frames = {}
        for key in self.encoder.keys:
            if key not in observation:
                raise SpecpolicyError(
                    f"the observation has no key '{key}': the policy needs {', '.join(self.encoder.keys)}"
                )
            frames[key] = checked_frames(key, observation[key], self.frame_shape(key))
        counts = {key: len(value) for key, value in frames.items()}
        if len(set(counts.values())) > 1:
            found = ", ".join(f"'{key}' {count}" for key, count in counts.items())
            raise SpecpolicyError(f"the keys of an observation must have one batch size, these have: {found}")
        return frames

    def _normalised(self, key: str, frames: Tensor, device: torch.device) -> Tensor:
        found = network_frames(key, frames, _sides(self.encoder.shapes[key]), device)
        return self.normaliser.normalise(key, found)

    def _features(self, key: str, frames: Tensor, device: torch.device, state: Any) -> Tensor:
        """Return the features (B, To, D) of checked frames, images one by one. `state`: see `FrameCache.features`;
        None: nothing is kept."""
        text = self._is_text(key)
        if not text and not is_image(self.encoder.shapes[key]):
            return self.encoder.features(key, self._normalised(key, frames, device))
        number = frames.shape[1]
        frames = frames[:, -1:] if text else frames  # the newest text stands for all frames
        features = []
        for one in frames.flatten(end_dim=1):
            frame = one.contiguous()  # other strides may lead to another convolution, which rounds differently

            def encoded(frame: Tensor = frame) -> Tensor:
                return self._encoded(key, self._normalised(key, frame[None, None], device))[0, 0]

            kept = state is not None and frame.device.type == "cpu"
            features.append(self.cache.features(state, frame_name(key, frame), encoded) if kept else encoded())
        found = torch.stack(features).unflatten(0, frames.shape[:2])
        return found.expand(-1, number, -1) if text else found

    def _is_text(self, key: str) -> bool:
        return isinstance(self.encoder, ImageEncoder) and key == self.encoder.text

    def _encoded(self, key: str, images: Tensor) -> Tensor:
        """Return the features (1, 1, D) of a normalised image (1, 1, C, H, W)."""
        engine = self.engines.get(key)
        if engine is None or not isinstance(self.encoder, ImageEncoder):
            return self.encoder.features(key, images)
        return engine(self.encoder.of_camera(key).prepared(images[0]))[None]


def _sides(shape: int | Sequence[int]) -> tuple[int, ...]:
    return (shape,) if isinstance(shape, int) else tuple(shape)
