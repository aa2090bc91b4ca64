"""The denoising loss of a diffusion policy (Ho et al. 2020, eq. 14; Salimans and Ho 2022 for v)."""

from torch import Tensor

from specpolicy.diffusion.chain import TrainingProcess


def noised(process: TrainingProcess, chunk: Tensor, noise: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor]:
    """The noised chunk (N, H, D) at `timestep` (N,) and what the network should say of it."""
    alpha_bar = process.alpha_bar.to(chunk.device)[timestep].reshape(-1, 1, 1)
    signal, scale = alpha_bar.sqrt().to(chunk.dtype), (1 - alpha_bar).sqrt().to(chunk.dtype)
    state = signal * chunk + scale * noise
    if process.prediction == "epsilon":
        return state, noise
    if process.prediction == "sample":
        return state, chunk
    return state, signal * noise - scale * chunk
