"""Sequential samplers: one network call per step. Exact samplers are measured against their distributions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from specpolicy.diffusion import GaussianChain
from specpolicy.engines.base import copy_condition
from specpolicy.engines.capture import Capture, apart
from specpolicy.engines.turn import Turn
from specpolicy.model import Model, check_output
from specpolicy.samplers.base import Chunks, Draw, Sample, Sampler, Setting, check_finite, repeat_statistics, upload
from specpolicy.samplers.options import check_amounts, check_counts


@dataclass(frozen=True)
class DDPM(Sampler):
    """Ancestral sampling (Ho et al. 2020, algorithm 2).

    Attributes:
        steps: length of a shorter chain of the same policy, which has another distribution; None: the policy's own.
    """

    name: ClassVar[str] = "ddpm"

    steps: int | None = None

    def __post_init__(self) -> None:
        check_counts(self, "steps")

    def bind(self, setting: Setting) -> Draw:
        """See `Sampler.bind`."""
        return walk(self.target(setting.chain), setting)

    def target(self, chain: GaussianChain) -> GaussianChain:
        """See `Sampler.target`."""
        return chain if self.steps is None else chain.strided(self.steps)


@dataclass(frozen=True)
class DDIM(Sampler):
    """DDIM (Song et al. 2021), the most common few-step sampler. Its distribution is not the policy's.

    Attributes:
        steps: network calls.
        eta: noise of the steps: none at 0, as much as DDPM at 1.
    """

    name: ClassVar[str] = "ddim"

    steps: int = 10
    eta: float = 0.0

    def __post_init__(self) -> None:
        check_counts(self, "steps", optional=False)
        check_amounts(self, "eta")

    def bind(self, setting: Setting) -> Draw:
        """See `Sampler.bind`."""
        return walk(self.target(setting.chain), setting)

    def target(self, chain: GaussianChain) -> GaussianChain:
        """See `Sampler.target`."""
        return chain.with_ddim(self.steps, self.eta)


def walk(chain: GaussianChain, setting: Setting) -> Draw:
    """Return a function that walks a chain from its noisiest step on, one call per step."""
    timesteps, noisy = chain.timesteps_on(setting.device), (chain.sigma > 0).tolist()
    captured = None if setting.model.capture is None else CapturedWalk(chain, setting.model.capture)

    def draw(model: Model, chunks: Chunks) -> Sample:
        state, batch = chunks.state, len(chunks.state)
        if captured is not None and batch == 1 and not chunks.return_states:
            return captured(model, chunks)
        checksums = torch.zeros(len(chain), device=state.device)
        states = [state]
        for step in range(len(chain)):
            output = model(state, timesteps[step].expand(batch), chunks.cond)
            state = chain.mean(state, chain.x0(output, state, step), step)
            if noisy[step]:
                state = state + chain.shock(chunks.noise.normal(*setting.shape), step)
            checksums[step] = output.sum()  # before it is clipped
            if chunks.return_states:
                states.append(state)
        check_finite(checksums, chain.timesteps)
        return Sample(
            state, repeat_statistics(batch, len(chain)), torch.stack(states) if chunks.return_states else None
        )

    return draw


class Values(NamedTuple):
    """A chunk between two steps: state (1, H, D) at `step` (1,), noise (K, H, D), cond (1, ...) or None, checksums (K,)
    of the network's outputs so far."""

    state: Tensor
    step: Tensor
    noise: Tensor
    cond: Tensor | None
    checksums: Tensor


class CapturedWalk:
    """Walks a chain for one chunk in steps that an engine can capture: one launch each. Threads take turns."""

    def __init__(self, chain: GaussianChain, capture: Capture):
        self.chain, self.capture, self._turn = chain, capture, Turn()
        self._noisy = (chain.sigma > 0).nonzero().flatten()
        self._values: Values | None = None
        self._run: Callable[[], Tensor] | None = None

    def __call__(self, model: Model, chunks: Chunks) -> Sample:
        """Draw the chunk."""
        chain, count = self.chain, len(self.chain)
        with self._turn.on(chunks.state.device):
            if self._values is None:
                zeros = chunks.state.new_zeros
                step, cond = torch.zeros(1, dtype=torch.int64, device=chunks.state.device), chunks.cond
                with torch.inference_mode(False), torch.no_grad():
                    made = apart(Values(chunks.state, step, zeros(count, *chunks.state.shape[1:]), cond, zeros(count)))
                    self._run = self.capture(self._step, made)
                    self._noisy = upload(self._noisy, chunks.state.device)
                self._values = made  # now that it is captured
            values, run = self._values, self._run
            assert run is not None
            values.state.copy_(chunks.state)
            values.step.zero_()
            copy_condition(values.cond, chunks.cond)
            if len(self._noisy):
                noises = chunks.noise.normals(len(self._noisy), *chunks.state.shape[1:])[:, 0]
                values.noise.index_copy_(0, self._noisy, noises)
            for _ in range(count):
                model.launch([1], run)
            check_finite(values.checksums, chain.timesteps)
            return Sample(values.state.clone(), repeat_statistics(1, count))

    def _step(self, values: Values) -> tuple[Values, Tensor]:
        chain, (state, step, noise, cond, checksums) = self.chain, values
        output = self.capture.network(state, chain.timesteps_on(state.device)[step], cond)
        check_output(output, state)
        state = chain.mean(state, chain.x0(output, state, step), step) + chain.shock(noise[step], step)
        checksums = checksums.index_copy(0, step, output.sum().to(checksums)[None])
        return Values(state, step + 1, noise, cond, checksums), state
