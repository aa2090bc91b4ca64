"""LeRobot's policy type `specpolicy`: a policy of ours behind LeRobot's interface."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.policies.pretrained import PreTrainedPolicy
from torch import Tensor

from specpolicy.committed import Committed
from specpolicy.control import Execution
from specpolicy.errors import SpecpolicyError
from specpolicy.images import is_image
from specpolicy.integrations.lerobot.processors import BEFORE
from specpolicy.integrations.lerobot_plugin.beside import Beside
from specpolicy.integrations.lerobot_plugin.configuration_specpolicy import SpecpolicyConfig
from specpolicy.integrations.lerobot_plugin.processor_specpolicy import makes_tokens
from specpolicy.policy import load_policy
from specpolicy.rates import check_rate

KINDS = {"observation.state": FeatureType.STATE}


class SpecpolicyPolicy(PreTrainedPolicy):
    """Draws chunks by a sampler of ours, for LeRobot's rollout, evaluation and policy server.

    Observations and actions are in the robot's units: the policy normalises them itself, so the processors around it do
    not. Its features are those of the policy at `config.source`.

    Raises:
        SpecpolicyError: a source, sampler or engine that cannot be used.
    """

    config_class = SpecpolicyConfig
    name = "specpolicy"

    def __init__(self, config: SpecpolicyConfig, **kwargs: Any):
        super().__init__(config)
        drawer = load_policy(config.source, config.device or "cpu").sampler(config.sampler, engine=config.engine)
        policy = self.policy = drawer.policy
        # LeRobot has its own names for what is observed.
        self._names = {key: config.observation.get(key, key) for key in policy.observation_keys}
        unknown = [key for key in config.observation if key not in self._names]
        if unknown:
            keys = ", ".join(self._names)
            raise SpecpolicyError(f"--policy.observation: the policy observes no '{unknown[0]}', it observes {keys}")
        most = policy.horizon - policy.first_action
        self._execute = policy.n_action_steps if config.execute_steps is None else config.execute_steps
        if not 1 <= self._execute <= most:
            raise SpecpolicyError(f"--policy.execute_steps={self._execute}: a chunk has {most} actions to execute")
        text = getattr(policy.encoder, "text", None)
        if text is not None and text not in config.observation and not makes_tokens(config.source):
            raise SpecpolicyError(
                f"--policy.source={config.source}: the policy reads a text, and nothing there says how tokens are made "
                f"of it: give the directory that LeRobot saved, with its {BEFORE}"
            )
        shapes = {key: tuple(policy.frame_shape(key)[1:]) for key in self._names if key != text}
        config.n_obs_steps = policy.n_obs_steps
        config.input_features = {self._names[key]: _feature(self._names[key], shape) for key, shape in shapes.items()}
        config.output_features = {"action": PolicyFeature(FeatureType.ACTION, (policy.action_dim,))}
        self._drawer = drawer
        self._way = config.stitching or "rtc"
        self._beside: Beside | None = None
        if config.hz is not None:
            check_rate(
                policy.control_hz, config.hz, "LeRobot's loop", f"give --fps and --policy.hz={policy.control_hz}"
            )
            execution = Execution(self._execute, stitching=config.stitching or "continue_chunk")
            self._beside = Beside(drawer, config.hz, execution, config.seed)
        self._generator = torch.Generator().manual_seed(config.seed)
        self.last_stats: Any = None
        self.reset()

    @classmethod
    def from_pretrained(cls, pretrained_name_or_path: Any = None, *, config: Any = None, **kwargs: Any) -> Any:
        """Return the policy of a configuration; the weights are read from its `source`."""
        if config is None:
            config = SpecpolicyConfig.from_pretrained(pretrained_name_or_path)
        return cls(config)

    def reset(self) -> None:
        """Begin an episode: forget frames and actions. Its random numbers continue."""
        self._frames: deque[dict[str, Tensor]] = deque(maxlen=self.policy.n_obs_steps)
        self._action_queue: deque[Tensor] = deque()  # a name that LeRobot clears when the task changes
        if self._beside is not None:
            self._beside.reset()

    def select_action(self, batch: dict[str, Tensor], **kwargs: Any) -> Tensor:
        """Return the action (B, D) for this control step. Without `config.hz`, a new chunk is drawn when the last one
        is used up."""
        self._see(batch)
        if self._beside is not None:
            frame = {key: value.cpu().numpy() for key, value in self._frames[-1].items()}
            if any(len(value) != 1 for value in frame.values()):
                raise SpecpolicyError("--policy.hz is for one robot: leave it out for a batch of environments")
            action = self._beside({key: value[0] for key, value in frame.items()})
            return torch.as_tensor(action, dtype=torch.float32, device=self.config.device)[None]
        if not self._action_queue:
            chunk = self._draw(None)[:, : self._execute]
            self._action_queue.extend(chunk.unbind(1))
        return self._action_queue.popleft()

    def predict_action_chunk(
        self,
        batch: dict[str, Tensor],
        inference_delay: int | None = None,
        prev_chunk_left_over: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Return the actions (B, T, D) from the newest observation on.

        Args:
            batch: a frame of each key, (B, ...).
            inference_delay: how many of the actions in `prev_chunk_left_over` are executed before this chunk can be
                used.
            prev_chunk_left_over: (T, D) or (1, T, D) what the last chunk still says; zeros at its end fill it up.
        """
        self._see(batch)
        return self._draw(_committed(prev_chunk_left_over, inference_delay or 0, self._way))

    def supports_rtc(self) -> bool:
        """Whether chunks can be drawn given what is executed meanwhile.

        LeRobot then shows a policy the newest frame alone, so one that observes several would see frames far apart.
        """
        return self.policy.n_obs_steps == 1 and self._way.partition("-")[0] in self.policy.ways

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict | None]:
        """Refuse to be trained."""
        raise SpecpolicyError(
            "policy.type=specpolicy runs policies; train them by specpolicy train or as LeRobot's own"
        )

    def get_optim_params(self) -> dict:
        """Return no parameters: this type is not trained."""
        return {}

    def _see(self, batch: dict[str, Tensor]) -> None:
        missing = [name for name in self._names.values() if name not in batch]
        if missing:
            there = ", ".join(name for name in batch if name.startswith("observation"))
            raise SpecpolicyError(
                f"the policy observes '{missing[0]}', which LeRobot does not show it (it shows {there}): give its name "
                "there by --policy.observation='{...}'"
            )
        self._frames.append({key: batch[name].clone() for key, name in self._names.items()})

    def _draw(self, committed: Committed | None) -> Tensor:
        frames = [self._frames[0]] * (self.policy.n_obs_steps - len(self._frames)) + [*self._frames]
        history = {key: torch.stack([frame[key] for frame in frames], dim=1) for key in self._names}
        out = self._drawer(history, self._generator, committed=committed)
        self.last_stats = out.stats
        return out.actions[:, self.policy.first_action :].clone()


def _feature(name: str, shape: tuple[int, ...]) -> PolicyFeature:
    kind = FeatureType.VISUAL if is_image(shape) else KINDS.get(name, FeatureType.ENV)
    return PolicyFeature(kind, shape)


def _committed(left: Tensor | None, delay: int, way: str) -> Committed | None:
    """Return what LeRobot says is executed meanwhile; None if nothing is."""
    if left is None or delay < 1:
        return None
    actions = left.reshape(-1, left.shape[-1]).detach().cpu().numpy()
    # LeRobot fills the rest up with zeros, to a length that compiled policies need.
    known = len(actions)
    while known and not actions[known - 1].any():
        known -= 1
    return Committed(actions[:known], min(delay, known), way) if known else None
