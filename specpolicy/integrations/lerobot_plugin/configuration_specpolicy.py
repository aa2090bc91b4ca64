"""The options of LeRobot's policy type `specpolicy`: `--policy.source=...` and the others."""

from dataclasses import dataclass, field
from typing import Any

from lerobot.configs.policies import PreTrainedConfig

from specpolicy.errors import SpecpolicyError


@PreTrainedConfig.register_subclass("specpolicy")
@dataclass
class SpecpolicyConfig(PreTrainedConfig):
    """Any policy that `specpolicy.load_policy` reads, as a policy of LeRobot.

    Attributes:
        source: the policy's path, ours or LeRobot's own, or `wandb:entity/project/name:version`.
        sampler: name of the sampler, such as "recycled" or "ddim-10"; None: the policy's best exact one.
        engine: runs the network; "auto": the fastest here.
        execute_steps: actions of a chunk to execute before the next one is drawn; None: the policy's own number.
        seed: of the random numbers.
        observation: {the policy's key: LeRobot's}, where they differ. LeRobot's `--rename_map` is not applied to this
            type.
        hz: LeRobot's `--fps`: chunks are drawn beside the loop, which does not wait for them. None: the loop waits.
        stitching: how chunks are joined, see `specpolicy.control.Execution`. None: "continue_chunk", and with
            `--inference.type=rtc` "rtc".
    """

    source: str = ""
    sampler: str | None = None
    engine: str = "auto"
    execute_steps: int | None = None
    seed: int = 0
    observation: dict[str, str] = field(default_factory=dict)
    hz: float | None = None
    stitching: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.source:
            raise SpecpolicyError("--policy.source is required: the path of a policy, ours or LeRobot's own")

    @property
    def observation_delta_indices(self) -> list[int]:
        """See LeRobot: for training alone, which this type has none of."""
        return []

    action_delta_indices = observation_delta_indices
    reward_delta_indices = observation_delta_indices

    def get_optimizer_preset(self) -> Any:
        """Refuse to be trained."""
        raise SpecpolicyError(
            "policy.type=specpolicy runs policies; train them by specpolicy train or as LeRobot's own"
        )

    get_scheduler_preset = get_optimizer_preset

    def validate_features(self) -> None:
        """Do nothing: the features are those of the policy that is loaded."""
