"""`make_engine`, which makes engines by name."""

import difflib
from collections.abc import Sequence

import torch

from specpolicy.engines.auto import Beside, automatic_engine
from specpolicy.engines.base import Denoiser, Engine, Workload
from specpolicy.engines.compiled import CompiledEngine
from specpolicy.engines.cuda_graph import CudaGraphEngine
from specpolicy.engines.eager import EagerEngine
from specpolicy.engines.openvino import OpenVINOEngine
from specpolicy.errors import SpecpolicyError
from specpolicy.precision import check_precision

ENGINES: dict[str, type[Engine]] = {
    kind.name: kind  # type: ignore[type-abstract]
    for kind in (EagerEngine, CompiledEngine, CudaGraphEngine, OpenVINOEngine)
}
AUTO = "auto"
# `auto` chooses from these. torch.compile takes a minute or more, so only an explicit name selects it.
OFFERED: tuple[type[Engine], ...] = (OpenVINOEngine, CudaGraphEngine, EagerEngine)


def check_engine_name(name: str) -> None:
    """Raise for a name that `make_engine` does not know.

    Raises:
        SpecpolicyError: an unknown name.
    """
    names = [*ENGINES, AUTO]
    if name not in names:
        close = difflib.get_close_matches(str(name), names, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"use one of {', '.join(names)}"
        raise SpecpolicyError(f"unknown engine '{name}': {hint}")


def make_engine(
    name: str,
    denoiser: Denoiser,
    chunk_shape: Sequence[int],
    cond_shape: Sequence[int] | None = None,
    max_rows: int = 100,
    precision: str = "float32",
    train_steps: int = 100,
    time_dtype: torch.dtype = torch.int64,
    beside: Beside | None = None,
) -> Engine:
    """Make an engine by its name and warm it up, which may take a minute or more.

    Args:
        name: "eager"; "compile" (torch.compile); "cuda_graph"; "openvino" (CPUs; the optional extra); or "auto", the
            fastest of them here except compile, found once and remembered, see `automatic_engine`.
        chunk_shape: (H, D) of one row.
        cond_shape: shape of one row's condition; None if the network takes none.
        max_rows: most rows of one call of the network: for one chunk, the steps of the chain.
        precision: "float32", or "bfloat16" inside the network, which changes the distribution.
        train_steps: of the chain's training process; timesteps are below this number.
        time_dtype: of the timesteps, such as torch.float32 for a network that takes them between whole numbers.
        beside: what "auto" shall count with the calls of the network.

    Raises:
        SpecpolicyError: an unknown name, an engine that cannot run here, or one that computes something else.
    """
    check_engine_name(name)
    if max_rows < 1:
        raise SpecpolicyError(f"max_rows={max_rows}: expected at least one row")
    shape = None if cond_shape is None else tuple(cond_shape)
    workload = Workload(denoiser, tuple(chunk_shape), shape, max_rows, precision, train_steps, time_dtype)
    check_precision(precision, workload.device)
    if name == AUTO:
        return automatic_engine(OFFERED, workload, beside)
    engine = ENGINES[name](workload)
    engine.warm_up()
    return engine
