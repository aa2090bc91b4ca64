"""The optimiser Muon, which torch has from 2.9 on. This one computes in the precision of the weights.

torch's version orthogonalises in bfloat16 on every machine. Many CPUs have no instructions for bfloat16. They take
twenty to forty times as long for the same matrices, so a calibration would take hours instead of minutes.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

# Coefficients of a quintic whose iteration takes all singular values near 1 (Jordan et al. 2024, "Muon").
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Momentum with an orthogonalised update, for the matrices of hidden layers (Jordan et al. 2024).

    Args:
        parameters: matrices.
        lr: learning rate. The entries of an update are as large as those of AdamW at this rate (Liu et al. 2025, "Muon
            is scalable for LLM training").
        momentum: decay of the average of gradients, with Nesterov's look ahead.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], lr: float, momentum: float = 0.95):
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Take one step down the gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                if matrix not in self.state:
                    self.state[matrix]["average"] = torch.zeros_like(matrix)
                average = self.state[matrix]["average"]
                average.lerp_(matrix.grad, 1 - group["momentum"])
                update = orthogonalised(matrix.grad.lerp(average, group["momentum"]))
                matrix.add_(update, alpha=-0.2 * math.sqrt(max(matrix.shape)) * group["lr"])
        return loss


def orthogonalised(matrix: Tensor) -> Tensor:
    """Return approximately U V^T, where U S V^T is the singular value decomposition of `matrix`, (M, N) -> (M, N)."""
    a, b, c = COEFFICIENTS
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    wide = wide / wide.norm().clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide.T if matrix.shape[0] > matrix.shape[1] else wide
