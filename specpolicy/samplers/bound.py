"""A bound sampler: settled for a network, a chain and a shape, it draws chunks without look-ups."""

import contextlib
import dataclasses
import numbers

import torch
from torch import Tensor

from specpolicy.errors import SpecpolicyError
from specpolicy.parsing import shown
from specpolicy.samplers.base import Chunks, Generators, NoiseSource, Sample, Sampler, Setting
from specpolicy.samplers.description import describe_distribution, describe_drafts
from specpolicy.tuning import now


class BoundSampler:
    """Draws chunks with one sampler in one setting. Threads may share it.

    Attributes:
        sampler: the options.
        setting: the setting it is bound to.
        draw: the function that `Sampler.bind` returned.
    """

    def __init__(self, sampler: Sampler, setting: Setting):
        """Bind the sampler.

        Raises:
            SpecpolicyError: see `Sampler.bind`.
        """
        self.sampler, self.setting = sampler, setting
        # A bound sampler is kept and may be used in any autograd mode.
        with torch.inference_mode(False), torch.no_grad():
            self.draw = sampler.bind(setting)

    def __repr__(self) -> str:
        return f"BoundSampler({self.sampler}, {self.setting.chain}, {self.setting.backend})"

    def describe(self) -> dict[str, str | None]:
        """Return `distribution`, what it draws from, and `window`, its drafts in words (None without drafts)."""
        distribution = describe_distribution(self.sampler, self.setting.chain)
        return {"distribution": distribution, "window": describe_drafts(self.draw)}

    def __call__(
        self,
        batch: int,
        cond: Tensor | None = None,
        generator: Generators = None,
        return_states: bool = False,
        start: Tensor | None = None,
    ) -> Sample:
        """Draw a batch of chunks (B, H, D).

        Args:
            batch: B.
            cond: (B, ...) or (1, ...), which is expanded; None for an unconditional denoiser.
            generator: one for the batch, or a sequence of B, one per row.
            return_states: also return the states on the way.
            start: (B, H, D) the initial noise; drawn by default.

        Raises:
            SpecpolicyError: conditions, generators or a start that do not fit the batch, values that are not finite.
        """
        device = self.setting.device
        if isinstance(batch, bool) or not isinstance(batch, numbers.Integral) or batch < 0:
            raise SpecpolicyError(f"a batch of {shown(batch)} chunks: expected a whole number, 0 or more")
        if not isinstance(start, Tensor | None):
            raise SpecpolicyError(f"start is a {type(start).__name__}: give the noise as a torch.Tensor, (B, H, D)")
        if cond is not None:
            if len(cond) not in (1, batch):
                raise SpecpolicyError(
                    f"cond has {len(cond)} rows, the batch has {batch}: give one row, or one per chunk"
                )
            cond = cond.to(device).expand(batch, *cond.shape[1:])
        if start is not None and start.shape != (batch, *self.setting.shape):
            raise SpecpolicyError(
                f"start has the shape {tuple(start.shape)}, the batch needs {(batch, *self.setting.shape)}: give the "
                "noise of each chunk"
            )
        noise = NoiseSource(generator, batch, device, self.setting.dtype)
        # Where autograd is off, the caller has already chosen a mode.
        with torch.inference_mode() if torch.is_grad_enabled() else contextlib.nullcontext():
            return self._timed(cond, noise, return_states, start)

    def _timed(self, cond: Tensor | None, noise: NoiseSource, return_states: bool, start: Tensor | None) -> Sample:
        setting = self.setting
        model, begin = setting.model.fresh(), now(setting.device)
        state = noise.normal(*setting.shape) if start is None else start.to(setting.device, setting.dtype)
        out = self.draw(model, Chunks(state, cond, noise, return_states))
        seconds = now(setting.device) - begin
        each = model.evaluations
        stats = dataclasses.replace(
            out.stats,
            calls=each * out.stats.calls,
            rows=each * out.stats.rows,
            rows_by_call=tuple(model.rows_by_call),
            seconds=seconds,
            network_seconds=model.seconds,
        )
        return dataclasses.replace(out, stats=stats)
