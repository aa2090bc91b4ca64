"""The number formats that a network can compute in."""

import warnings

import torch

from specpolicy.errors import SpecpolicyError

PRECISIONS = ("float32", "bfloat16")


def check_precision(precision: str, device: torch.device) -> None:
    """Raise unless `precision` is one of `PRECISIONS`; warn where the device only emulates it.

    Raises:
        SpecpolicyError: another precision.
    """
    if precision not in PRECISIONS:
        raise SpecpolicyError(f"unknown precision '{precision}': use one of {', '.join(PRECISIONS)}")
    if precision == "bfloat16" and not computes_in_bfloat16(device):
        kind = "CPU" if device.type == "cpu" else "device"
        warnings.warn(
            f"this {kind} has no instructions for bfloat16: precision=float32 is several times as fast", stacklevel=3
        )


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for matrix products in bfloat16. Without them these take many times as long
    as in float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        # oneDNN, which computes the products, also uses AVX-512 without such instructions, at no loss.
        return bool(torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return True
