"""A bound decoder: settled for a network and a calibration, it decodes chunks without look-ups."""

from dataclasses import dataclass

import torch
from torch import Tensor

from specpolicy.engines.base import Denoiser, allows_tf32
from specpolicy.errors import SpecpolicyError
from specpolicy.model import Model
from specpolicy.samplers.base import Generators, NoiseSource, Sample, SampleStatistics
from specpolicy.tokens.calibration import TokenCalibration, Trace, record_traces
from specpolicy.tokens.ordinary import Decoded, Network, decode, masked_start
from specpolicy.tokens.rules import DecodingNoise
from specpolicy.tokens.samplers import TokenSampler
from specpolicy.tokens.speculative import speculate
from specpolicy.tuning import now


@dataclass(frozen=True)
class TokenSetting:
    """Everything a decoder is bound to, which stays the same from chunk to chunk.

    Attributes:
        model: the network; each draw calls a `fresh` one.
        shape: (H, D) of a chunk, which has H * D tokens.
        bins: values that a token can have; the next number stands for a masked one.
        calibration: the policy's calibration.
    """

    model: Model
    shape: torch.Size
    bins: int
    calibration: TokenCalibration | None = None

    @property
    def device(self) -> torch.device:
        """Device of the network and of the states."""
        return self.model.device

    @property
    def backend(self) -> str:
        """Name under which a calibration keeps its numbers of drafts for this engine and device; see `backend_name`."""
        return self.model.backend

    @property
    def length(self) -> int:
        """Tokens of a chunk."""
        return self.shape.numel()


class BoundDecoder:
    """Decodes chunks with one decoder in one setting. Threads may share it.

    Attributes:
        sampler: the decoder's options.
        setting: the setting it is bound to.
        found: the calibration for this decoder, if there is one.
    """

    def __init__(self, sampler: TokenSampler, setting: TokenSetting):
        """Bind the decoder.

        Raises:
            SpecpolicyError: a calibration for other tokens.
        """
        self.sampler, self.setting = sampler, setting
        self.found = sampler.found_in(setting)
        self.rule = sampler.rule(setting.length)
        self.drafter = sampler.make_drafter(setting.length, self.found, setting.backend)

    def __repr__(self) -> str:
        return f"BoundDecoder({self.sampler}, {self.setting.backend})"

    def __call__(
        self,
        batch: int,
        cond: Tensor,
        generator: Generators = None,
        return_states: bool = False,
        start: Tensor | None = None,
    ) -> Sample:
        """Decode a batch of chunks (B, H, D) of tokens, for encoded observations `cond` (B, To, F).

        `start` (B, L): tokens that are known from the start, with `bins` for those that are masked; by default all are.

        The same generator gives the same noise, and so the same tokens, whatever is drafted. `states`, if asked for:
        (K+1, B, H, D), the last one repeated for chunks of fewer steps.

        Raises:
            SpecpolicyError: see `decode`.
        """
        setting = self.setting
        model, begin = setting.model.fresh(), now(setting.device)
        out = self.decode(cond, generator, model, return_states, start)
        stats = SampleStatistics(
            out.calls,
            out.rows,
            out.accepted,
            rows_by_call=tuple(model.rows_by_call),
            seconds=now(setting.device) - begin,
            network_seconds=model.seconds,
        )
        return Sample(out.tokens.view(batch, *setting.shape), stats, self._states(out))

    @torch.inference_mode()
    def decode(
        self,
        cond: Tensor,
        generator: Generators = None,
        denoiser: Denoiser | None = None,
        keep_paths: bool = False,
        start: Tensor | None = None,
    ) -> Decoded:
        """Decode chunks as tokens (B, L), with the paths to them, if asked for.

        `denoiser` evaluates states in the network's place. `start`: see `__call__`.

        Raises:
            SpecpolicyError: drafts in less than float32, where a row's logits depend on the other rows of its call.
        """
        noise, masked = self._begin(len(cond), generator)
        start = masked if start is None else start
        network, bins = self._network(cond, denoiser), self.setting.bins
        if self.drafter is None:
            return decode(network, self.rule, noise, start, bins, keep_paths=keep_paths)
        if why := self._inexact():
            raise SpecpolicyError(f"drafts change nothing in float32 only, and {why}: use drafts=0")
        return speculate(network, self.rule, self.drafter, noise, start, bins, keep_paths=keep_paths)

    @torch.inference_mode()
    def record(self, cond: Tensor, generator: Generators, blind: bool = False) -> tuple[list[Trace], Tensor]:
        """Decode without drafts; return the traces and the tokens (B, L), for encoded observations `cond` (B, To, F).

        `blind`: see `record_traces`.
        """
        noise, start = self._begin(len(cond), generator)
        return record_traces(self._network(cond), self.rule, noise, start, self.setting.bins, blind)

    def describe(self) -> dict[str, str | None]:
        """Return `distribution`, what it draws from, and `window`, its drafts in words such as "graph, 16 drafts"
        (None without drafts)."""
        drafts = self.sampler.describe_drafts(self.found, self.setting.backend)
        return {"distribution": self.sampler.distribution, "window": drafts}

    def _network(self, cond: Tensor, denoiser: Denoiser | None = None) -> Network:
        """Return the network in the form that decoders call."""
        bins, shape, evaluate = self.setting.bins, self.setting.shape, denoiser or self.setting.model.denoiser

        def logits(states: Tensor, owner: Tensor) -> Tensor:
            remaining = (states == bins).sum(dim=1)
            return evaluate(states.view(-1, *shape), remaining, cond[owner]).flatten(1, 2)

        return logits

    def _begin(self, batch: int, generator: Generators) -> tuple[DecodingNoise, Tensor]:
        """Return the noise and the masked states of new chunks."""
        setting = self.setting
        source = NoiseSource(generator, batch, setting.device, torch.float32)
        noise = self.rule.draw_noise(setting.bins, source.uniform)
        return noise, masked_start(batch, setting.length, setting.bins, setting.device)

    def _states(self, out: Decoded) -> Tensor | None:
        if out.paths is None:
            return None
        steps = max(map(len, out.paths))
        paths = [torch.stack([*path, *[path[-1]] * (steps - len(path))]) for path in out.paths]
        return torch.stack(paths, dim=1).view(steps, -1, *self.setting.shape)

    def _inexact(self) -> str | None:
        """Return the reason why matrix products are less than float32 now, None if they are not."""
        network = self.setting.model.network
        precision = torch.float32 if network is None else next(network.parameters()).dtype
        return inexact(precision, self.setting.device)


def inexact(precision: torch.dtype, device: torch.device) -> str | None:
    """Return the reason why a network in that precision has matrix products below float32, None if it has not."""
    if precision != torch.float32:
        return f"the network has {precision}"
    if torch.is_autocast_enabled(device.type):
        return "torch.autocast is active"
    if device.type == "cuda" and allows_tf32("products"):
        return "torch.backends.cuda.matmul allows TF32"
    return None
