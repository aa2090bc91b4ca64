"""Verifiers: decide which drafts are accepted and correct the first rejected one. One rule per file."""

from specpolicy.samplers.speculative.verifiers.base import TokenVerifier, Verdict, Verifier
from specpolicy.samplers.speculative.verifiers.block import Block
from specpolicy.samplers.speculative.verifiers.reflection import Reflection
from specpolicy.samplers.speculative.verifiers.residual import Residual

VERIFIERS: dict[str, type[Verifier]] = {kind.name: kind for kind in (Reflection, Residual, Block)}

__all__ = ["VERIFIERS", "Block", "Reflection", "Residual", "TokenVerifier", "Verdict", "Verifier"]
