"""Ways by name."""

from torch import Tensor

from specpolicy.committed import GRADIENT, LINEAR, REMEDIES, check_way
from specpolicy.conditioning.guided import Gradient, Guided
from specpolicy.conditioning.inpaint import Inpaint
from specpolicy.conditioning.linear import Linear
from specpolicy.conditioning.rtc import RealTimeChunking
from specpolicy.conditioning.ways import Way
from specpolicy.diffusion import TrainingProcess
from specpolicy.errors import SpecpolicyError


def make_way(
    name: str,
    process: TrainingProcess,
    shape: tuple[int, int],
    first: int,
    committed_dim: int,
    prior: tuple[Tensor, Tensor] | None = None,
) -> Way:
    """Return a way by its name, perhaps with its number: "linear-0.1" for the noise of `Linear`, "guided-2" for the
    bound of `Guided` (or "gradient-2").

    Args:
        name: see `specpolicy.committed.WAYS`.
        process: the training process.
        shape: (H, D) of a chunk.
        first: the entry of the first committed action.
        committed_dim: numbers of an entry that are committed, at most D.
        prior: basis (d, d) and variances (d,) of chunks given an observation, for `Linear`.

    Raises:
        SpecpolicyError: no such way, a number that it does not take, or no prior for `Linear`.
    """
    kind, number = check_way(name)
    if kind == "guided":
        return Guided(process, number)
    if kind == GRADIENT:
        return Gradient(process, number)
    if kind == LINEAR:
        if prior is None:
            raise SpecpolicyError(f"{LINEAR} needs the covariance of this policy's chunks: {REMEDIES[LINEAR]}")
        return Linear(process, *prior, shape[1], first, committed_dim, number)
    return {"inpaint": Inpaint, "rtc": RealTimeChunking}[kind](process)
