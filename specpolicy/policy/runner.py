"""`Runner`: returns one action for each observation, for a loop over control steps."""

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from specpolicy.errors import SpecpolicyError
from specpolicy.images import kept

if TYPE_CHECKING:
    from specpolicy.policy.sampler import PolicySampler


class Runner:
    """Keeps the state of a policy between control steps: the frames it has seen and the chunk it executes.

    It draws a new chunk when the last one is used up, and the caller waits for it. For a robot that cannot wait, use
    `specpolicy.control`, which plans while the robot moves.

    Attributes:
        sampler: draws the chunks.
        execute_steps: actions of a chunk that are executed before the next one is drawn.
        chunks: number drawn since the last reset.
    """

    def __init__(self, sampler: "PolicySampler", seed: int = 0, execute_steps: int | None = None):
        """Begin the first episode.

        Args:
            sampler: draws the chunks.
            seed: of the random numbers of the first episode.
            execute_steps: by default the policy's n_action_steps.

        Raises:
            SpecpolicyError: more steps than a chunk has after the newest observation.
        """
        policy = sampler.policy
        # Actions of a chunk, from the newest observation on.
        most = policy.horizon - policy.first_action
        steps = policy.n_action_steps if execute_steps is None else execute_steps
        if not (isinstance(steps, int) and 1 <= steps <= most):
            raise SpecpolicyError(
                f"execute_steps={execute_steps}: a chunk has {most} actions that can be executed, use 1 to {most}"
            )
        self.sampler, self.execute_steps, self._policy = sampler, steps, policy
        self._generator = torch.Generator()
        self.reset(seed)

    def __repr__(self) -> str:
        return f"Runner({self.sampler}, execute_steps={self.execute_steps})"

    def reset(self, seed: int | None = None) -> None:
        """Begin an episode: forget frames and chunk. With a seed its random numbers begin anew, too; without one they
        continue, so that episodes differ."""
        self._frames: deque[dict[str, Any]] = deque(maxlen=self._policy.n_obs_steps)
        self._actions: deque[np.ndarray] = deque()
        self.chunks = 0
        if seed is not None:
            if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
                raise SpecpolicyError(f"seed={seed!r}: expected a whole number")
            self._generator.manual_seed(int(seed))

    def __call__(self, observation: Mapping[str, Any]) -> np.ndarray:
        """Return the action (D,) for this control step, float32, in the environment's units.

        Args:
            observation: by key one frame, (D_key,) or an image (H, W, C), in the environment's units. The first frame
                of an episode stands for those before it. Call it at every control step, because each call adds a frame.

        Raises:
            SpecpolicyError: a key that is missing, a frame of another shape.
        """
        keys = self._policy.observation_keys
        if not isinstance(observation, Mapping):
            raise SpecpolicyError(f"the observation is a {type(observation).__name__}: give {{key: frame}}")
        missing = [key for key in keys if key not in observation]
        if missing:
            raise SpecpolicyError(f"the observation has no key '{missing[0]}': the policy needs {', '.join(keys)}")
        frame = {key: kept(observation[key]) for key in keys}
        for key, value in frame.items():
            shape, wanted = np.shape(value), tuple(self._policy.frame_shape(key)[1:])
            if shape != wanted and not (len(wanted) == 3 and shape == (*wanted[1:], wanted[0])):
                raise SpecpolicyError(f"the observation '{key}' has shape {shape}: one frame of it has {wanted}")
        self._frames.append(frame)
        if not self._actions:
            frames = [self._frames[0]] * (self._policy.n_obs_steps - len(self._frames)) + [*self._frames]
            history = {key: np.stack([one[key] for one in frames]) for key in frame}
            drawn = self.sampler(history, self._generator).actions[0].cpu().numpy()
            first = self._policy.first_action
            self._actions.extend(drawn[first : first + self.execute_steps])
            self.chunks += 1
        return self._actions.popleft()
