"""Notes how many rows each call of a network has, so that the same calls can be made of another network."""

from torch import Tensor

from specpolicy.samplers.base import Denoiser, engine_name


class RowRecorder:
    """A denoiser like the one it wraps. `rows`: the number of rows of each call since it was last cleared."""

    def __init__(self, denoiser: Denoiser):
        self.denoiser = denoiser
        self.name = engine_name(denoiser)
        self.rows: list[int] = []

    def __call__(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        """Call the denoiser."""
        self.rows.append(len(x))
        return self.denoiser(x, t, cond)
