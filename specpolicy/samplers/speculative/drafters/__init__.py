"""Drafters: guesses of the network's output at unseen states. One strategy per file."""

from specpolicy.samplers.speculative.drafters.base import Drafter
from specpolicy.samplers.speculative.drafters.corrected import Corrected, CorrectionHead
from specpolicy.samplers.speculative.drafters.free import Free
from specpolicy.samplers.speculative.drafters.frozen_root import FrozenRoot
from specpolicy.samplers.speculative.drafters.independent import Independent

__all__ = ["Corrected", "CorrectionHead", "Drafter", "Free", "FrozenRoot", "Independent"]
