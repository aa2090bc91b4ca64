"""Other projects' policies and protocols, at the border of the package: one folder for each project.

Nothing in specpolicy imports this package. `specpolicy.load_policy` finds it by its name when it is given a path.
Checkpoints are read without the packages that wrote them. To sample through specpolicy inside a policy that you hold in
memory, see `wrap` of `specpolicy.integrations.diffusion_policy`, `.lerobot` and `.robomimic`.
"""

from specpolicy.integrations.checkpoints import read
from specpolicy.integrations.foreign import ForeignCheckpoint

__all__ = ["ForeignCheckpoint", "read"]
