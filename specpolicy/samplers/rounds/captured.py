"""Rounds for one chunk on a GPU: each has fixed shapes and is one launch, with a few numbers copied to the host and
back."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from specpolicy.diffusion import GaussianChain
from specpolicy.engines.base import copy_condition
from specpolicy.engines.capture import Capture, apart
from specpolicy.engines.turn import Turn
from specpolicy.model import Model
from specpolicy.samplers.base import Chunks, NoiseSource, Sample, upload
from specpolicy.samplers.rounds.fixed import Round, Values, committed, start
from specpolicy.samplers.rounds.shared import not_finite
from specpolicy.samplers.speculative.drafters.base import Drafter
from specpolicy.samplers.speculative.problem import Tally
from specpolicy.samplers.speculative.verifiers.base import Verifier

ROWS = (1, 8, 16, 32, 64, 128, 256)  # row counts to which a round is filled up; the longest window is one more
ROW = np.zeros(1, np.int64)  # the only one


class CapturedRounds:
    """The loop of `speculate` for one chunk, in functions that engines can capture. Threads take turns."""

    def __init__(
        self, chain: GaussianChain, drafter: Drafter, verifier: Verifier, limits: np.ndarray, capture: Capture
    ):
        self.chain, self.drafter, self.verifier, self.limits, self.capture = chain, drafter, verifier, limits, capture
        longest = int(limits.max())
        self.sizes = (*(rows - 1 for rows in ROWS if rows <= longest), longest)
        self._values: Values | None = None
        self._rounds: dict[tuple[int, bool], tuple[Round, Callable[[], Tensor]]] = {}
        self._turn = Turn()

    def __call__(self, model: Model, chunks: Chunks) -> Sample:
        """Draw the chunk.

        Raises:
            SpecpolicyError: a network that returns NaN or infinity.
        """
        with self._turn.on(chunks.state.device):
            return self._draw(model, chunks)

    def _draw(self, model: Model, chunks: Chunks) -> Sample:
        chain, count, position = self.chain, len(self.chain), 0
        values, tally, first = self._begin(chunks), Tally(1, len(self.chain)), True
        while True:
            width = int(self.limits[position])
            round_, run = self._rounds[next(size for size in self.sizes if size >= width), first]
            numbers = model.launch(round_.calls, run).cpu().numpy()
            for rows in (*round_.calls[:-1], round_.calls[-1] - (round_.drafts - width)):
                tally.call(ROW, rows)
            delta, coordinate, finite, uniform, second = numbers[:, None, : width + 1]
            if not finite.all():
                step = position + int(np.argmin(finite[0]))
                raise not_finite(chain, step, bool(values.states[step].isfinite().all()))
            parts = (delta[:, :-1], coordinate[:, :-1], uniform[:, :-1], second[:, :-1])
            verdict = self.verifier.decide(*parts, np.array([width]))
            tally.round(ROW, ROW + position, np.array([width]), verdict.accepted)
            said = torch.tensor([float(verdict.accepted[0]), float(verdict.shift[0]), width], dtype=torch.float64)
            values.verdict.copy_(upload(said, values.verdict.device))
            position, first = position + int(verdict.accepted[0]) + 1, False
            if position == count:
                return self._end(chunks, tally)
            if not self.verifier.keeps_noise:
                self._redraw(values, chunks.noise)

    def _begin(self, chunks: Chunks) -> Values:
        """Set the numbers of this chunk in the buffers that rounds use. The first chunk makes all that is captured."""
        if self._values is None:
            with torch.inference_mode(False), torch.no_grad():
                self._make(chunks)
        values = self._values
        assert values is not None
        values.state.copy_(chunks.state[0])
        values.position.zero_()
        copy_condition(values.cond, None if chunks.cond is None else chunks.cond[:1])
        self._redraw(values, chunks.noise)
        return values

    def _make(self, chunks: Chunks) -> None:
        network = self.capture.network
        values = apart(start(self.chain, self.drafter, network, chunks, int(self.limits.max())))
        for size in self.sizes:
            for first in (True, False) if size >= self.limits[0] else (False,):
                round_ = Round(self.chain, network, self.drafter, size, first)
                self._rounds[size, first] = round_, self.capture(round_, values)
        self._finish = self.capture(self._last, values)
        self._values = values

    def _last(self, values: Values) -> tuple[Values, Tensor]:
        values = committed(self.chain, values)
        return values, values.state.clone()

    def _redraw(self, values: Values, source: NoiseSource) -> None:
        """See `Batch.redraw`."""
        count = len(self.chain)
        values.noise.copy_(source.normal(count, *values.state.shape)[0])
        values.uniform.copy_(source.uniform(count, 2)[0])

    def _end(self, chunks: Chunks, tally: Tally) -> Sample:
        values, state = self._values, self._finish().clone()
        assert values is not None
        trace = None
        if chunks.return_states:  # the last draft of a step is the accepted one
            trace = torch.cat([values.states[: len(self.chain)], state[None]])[:, None]
        return Sample(state[None], tally.statistics(), trace)
