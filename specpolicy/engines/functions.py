"""Small functions beside the network, such as a drafter's surrogate, on the engine of the network."""

import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from specpolicy.engines.openvino import OpenVINOEngine
from specpolicy.engines.openvino_model import import_openvino
from specpolicy.engines.wrapped import WrappedEngine
from specpolicy.errors import SpecpolicyError

# (values (n, d), steps (n,), features (1, F)) -> (n, d), in numpy
StepFunction = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
Example = tuple[Tensor, Tensor, Tensor]
ROWS = (1, 2, 4, 6, 8, 12)  # compiled sizes; more rows are evaluated in pieces, see `openvino.PIECES`
TOLERANCE = 1e-3  # of the root mean square of torch's result
MOST = 8  # most functions that an engine keeps


def compiled_steps(
    engine: object, owner: object, chain: object, make: Callable[[], tuple[nn.Module, Example]]
) -> StepFunction | None:
    """Return a module (values (n, d), steps (n,), features (1, F)) -> (n, d), compiled by the engine of a network.

    Args:
        engine: runs the network.
        owner, chain: the function belongs to these; it is made once for them.
        make: returns the module, and inputs with the largest number of rows of a call.

    Returns:
        The compiled function; None where the engine has nothing faster than torch.

    Raises:
        SpecpolicyError: the engine computes something else.
    """
    engine = engine.inner if isinstance(engine, WrappedEngine) else engine
    if not isinstance(engine, OpenVINOEngine):
        return None
    for known_owner, known_chain, function in engine.functions:
        if known_owner is owner and known_chain is chain:
            return function
    made = _OpenVINOSteps(engine, *make())
    engine.functions = [*engine.functions[-MOST + 1 :], (owner, chain, made)]
    return made


class _OpenVINOSteps:
    """Steps with rows padded to the next of a few sizes, each compiled separately. Threads take turns."""

    def __init__(self, engine: OpenVINOEngine, module: nn.Module, inputs: Example):
        package, (most, size), features = import_openvino(), inputs[0].shape, inputs[2].shape[1]
        with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing warns about fixed shapes; all results are compared below
            inputs = (inputs[0].clone(), inputs[1].clone(), inputs[2].clone())
            traced = torch.jit.trace(module, inputs, check_trace=False)  # type: ignore[no-untyped-call]
            model = package.convert_model(traced, example_input=inputs)
            expected = module(*inputs).numpy()
        self._turn = threading.Lock()
        self._requests: dict[int, tuple[Any, tuple[np.ndarray, ...], np.ndarray]] = {}
        for rows in [rows for rows in ROWS if rows < most] or [most]:
            copy = model.clone()
            copy.reshape({0: [rows, size], 1: [rows], 2: [1, features]})
            request = engine.compile(copy).create_infer_request()
            buffers = np.zeros((rows, size), np.float32), np.zeros(rows, np.int64), np.zeros((1, features), np.float32)
            for index, buffer in enumerate(buffers):
                request.set_input_tensor(index, package.Tensor(buffer, shared_memory=True))
            output = np.zeros((rows, size), np.float32)
            request.set_output_tensor(0, package.Tensor(output, shared_memory=True))
            self._requests[rows] = request, buffers, output
        values, steps, fixed = (part.numpy() for part in inputs)
        scale = max(float(np.sqrt(np.square(expected).mean())), 1e-6)
        for rows in (*self._requests, most):
            found = self(values[:rows], steps[:rows], fixed)
            error = float(np.abs(found - expected[:rows]).max()) / scale
            if not error <= TOLERANCE:
                raise SpecpolicyError(f"OpenVINO differs from torch by {error:.1e} in drafting: use engine eager")

    def __call__(self, values: np.ndarray, steps: np.ndarray, features: np.ndarray) -> np.ndarray:
        """See `StepFunction`."""
        found, piece = np.empty_like(values, np.float32), max(self._requests)
        with self._turn:
            for start in range(0, len(values), piece):
                at = slice(start, start + piece)
                rows = len(values[at])
                request, buffers, output = self._requests[next(size for size in self._requests if size >= rows)]
                for buffer, value in zip(buffers, (values[at], steps[at], features), strict=True):
                    buffer[: len(value)] = value
                request.infer(share_outputs=True)
                found[at] = output[:rows]
        return found
