"""The distribution and the drafts of a bound sampler, in words for tables."""

from specpolicy.diffusion import GaussianChain
from specpolicy.samplers.base import Draw, Sampler
from specpolicy.samplers.ode import Solver
from specpolicy.samplers.picard import Picard
from specpolicy.samplers.recycled.drafter import RecycledDrafter
from specpolicy.samplers.recycled.surrogates import StudentSurrogate
from specpolicy.samplers.sequential import DDPM
from specpolicy.samplers.speculative.loop import Lengths
from specpolicy.samplers.speculative.samplers import Speculation, Speculative


def describe_distribution(sampler: Sampler, chain: GaussianChain) -> str:
    """Name a sampler's distribution: "own" (the one the policy was trained to draw), "near own", or "another".

    A flow policy has two, which differ at any number of steps: "ancestral", that of its chain, and "flow ODE".
    """
    if isinstance(sampler, Solver):
        return "flow ODE"
    if not isinstance(sampler, DDPM | Speculative | Picard):
        return "another"
    steps, eta = sampler.steps, getattr(sampler, "eta", None)
    if chain.eta is not None and steps is not None and eta is None:
        return "another"  # a DDPM chain of a policy whose own chain is DDIM
    own = "ancestral" if chain.process.kind == "flow" else "own"
    parts = [f"near {own}" if isinstance(sampler, Picard) else own]
    if steps not in (None, len(chain)):
        parts.append(f"{steps} steps")
    if eta is not None:
        parts.append(f"eta {eta:g}")
    return ", ".join(parts)


def describe_drafts(draw: Draw) -> str | None:
    """Return the most drafts in a round: "16", "to the end", "8 to 40" where it differs by step; None without drafts.
    For recycled drafts also how they are made: "48; student, 4 sweeps, rejoining"."""
    if not isinstance(draw, Speculation):
        return None
    drafter, limits = draw.drafter, _describe_limits(draw.window)
    if not isinstance(drafter, RecycledDrafter):
        return limits
    kind = "student" if isinstance(drafter.surrogate, StudentSurrogate) else "prior"
    how = f"{kind}, {drafter.sweeps} sweep{'s' * (drafter.sweeps > 1)}"
    return f"{limits}; {how}{', rejoining' * drafter.rejoin}"


def _describe_limits(limits: Lengths) -> str:
    if limits is None:
        return "to the end"
    if isinstance(limits, int):
        return str(limits)
    # Near the end of a chain the draft length is the number of steps left, which tells nothing.
    count = len(limits)
    free = [size for step, size in enumerate(limits) if size < count - 1 - step] or list(limits)
    return str(min(free)) if min(free) == max(free) else f"{min(free)} to {max(free)}"
