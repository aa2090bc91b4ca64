"""OpenVINO, for CPUs (the optional extra `openvino`)."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from specpolicy.engines.base import Buffers, PaddedEngine, Runner, Workload, row_sizes
from specpolicy.engines.openvino_model import draw, export, import_openvino, refusal
from specpolicy.engines.split import Features, split_network
from specpolicy.errors import SpecpolicyError

if TYPE_CHECKING:
    import openvino

# Compiled for one number of rows the small networks are up to twice as fast as compiled for any number. But each
# such copy holds the weights again, and the first call after one of another size finds them out of the cache. So
# there are few copies, and more rows are evaluated in pieces. That is as fast. Also, from 16 rows on a copy often
# waits for its slowest thread, so on a busy machine it takes several times as long.
PIECES = (1, 2, 4, 6, 8, 12)
# Large networks gain nothing from it and get one copy for all numbers.
COPIES_BYTES = 2**30


class OpenVINOEngine(PaddedEngine):
    """Runs on as many threads as torch has when the engine is made. It splits networks in two parts where possible (see
    `SplitNetwork`)."""

    name = "openvino"

    def __init__(self, workload: Workload):
        super().__init__(workload, [size for size in PIECES if size < workload.max_rows] or [workload.max_rows])
        self.functions: list[tuple[Any, Any, Any]] = []  # functions computed beside the network, see `compiled_steps`
        network = workload.denoiser
        if not isinstance(network, nn.Module):
            raise SpecpolicyError("engine 'openvino' needs a torch.nn.Module as denoiser")
        if workload.device.type != "cpu":
            raise SpecpolicyError(f"engine 'openvino' runs on the CPU, the policy is on {workload.device}")
        self._core = import_openvino().Core()
        if workload.precision == "bfloat16" and "BF16" not in self._core.get_property(
            "CPU", "OPTIMIZATION_CAPABILITIES"
        ):
            raise SpecpolicyError("this CPU does not compute in bfloat16: use dtype=float32")
        self._options = compile_options(workload.precision)
        weights = sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())
        self._features: Features | None = None
        self._shared: Any = None
        self._copies: dict[int, Any] = {}
        with torch.inference_mode(False), torch.no_grad():
            split = split_network(workload, max(self.sizes))
            if split is not None:
                self._features = Features(split, workload)
            else:
                self._exported = export(network, [value for value in workload.example(2) if value is not None])
            if weights * len(self.sizes) > COPIES_BYTES:
                self.sizes = row_sizes(workload.max_rows)
                self._shared = self._compile(None)
                return
            with ThreadPoolExecutor(min(len(self.sizes), os.cpu_count() or 1)) as pool:
                self._copies = dict(zip(self.sizes, pool.map(self._compile, self.sizes), strict=True))

    def _compile(self, rows: int | None) -> Any:
        """Compile the network for `rows` rows, or for any number."""
        if self._features is None:
            model = self._exported.clone()
            inputs = {index: [rows or -1, *list(port.partial_shape)[1:]] for index, port in enumerate(model.inputs)}
            model.reshape(inputs)
        else:
            split = split_network(self.workload, rows or max(self.sizes))
            model = draw(split, [(rows or -1, *self.workload.chunk_shape), (rows or -1, self._features.size)])
        try:
            return self._core.compile_model(model, "CPU", self._options)
        except RuntimeError as error:
            raise refusal(error) from error

    def compile(self, model: openvino.Model) -> Any:
        """Compile another model for this engine's threads, in float32."""
        return self._core.compile_model(model, "CPU", {**self._options, "INFERENCE_PRECISION_HINT": "f32"})

    def make_runner(self, size: int) -> Runner:
        """See `PaddedEngine.make_runner`."""
        compiled = self._copies.get(size, self._shared)
        buffers = Buffers(self.workload, size)
        features = None if self._features is None else buffers.x.new_zeros(size, self._features.size)
        output = torch.empty_like(buffers.x)
        inputs = [buffers.x, buffers.t, buffers.cond] if features is None else [buffers.x, features]
        request = bound_request(compiled, [value for value in inputs if value is not None], output)

        def run(x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
            if self._features is None or features is None:
                rows = buffers.fill(x, t, cond)
            else:
                rows = len(x)
                buffers.x[:rows].copy_(x)
                self._features.write(t, cond, features[:rows])
            request.infer(share_outputs=True)
            return output[:rows]

        return run


def compile_options(precision: str) -> dict[str, Any]:
    """Return options of `compile_model`; see `OpenVINOEngine` for the threads."""
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
        "ENABLE_CPU_PINNING": False,  # several processes would all be pinned to the same cores
    }


def bound_request(compiled: Any, inputs: list[Tensor], output: Tensor) -> Any:
    """Return a request that reads and writes these tensors in place."""
    package, request = import_openvino(), compiled.create_infer_request()
    for index, value in enumerate(inputs):
        request.set_input_tensor(index, package.Tensor(value.numpy(), shared_memory=True))
    request.set_output_tensor(0, package.Tensor(output.numpy(), shared_memory=True))
    return request
