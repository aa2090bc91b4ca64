"""Processors around LeRobot's policy type `specpolicy`: a batch axis and devices. The policy normalises by itself."""

from typing import Any

from lerobot.processor import (
    AddBatchDimensionProcessorStep,
    DeviceProcessorStep,
    PolicyProcessorPipeline,
    RenameObservationsProcessorStep,
)
from lerobot.processor.converters import policy_action_to_transition, transition_to_policy_action

from specpolicy.integrations.lerobot_plugin.configuration_specpolicy import SpecpolicyConfig


def make_specpolicy_pre_post_processors(config: SpecpolicyConfig, dataset_stats: Any = None) -> tuple[Any, Any]:
    """Return LeRobot's processors before and after the policy; LeRobot finds this function by its name."""
    before = [
        RenameObservationsProcessorStep(rename_map={}),
        AddBatchDimensionProcessorStep(),
        DeviceProcessorStep(device=config.device or "cpu"),
    ]
    return (
        PolicyProcessorPipeline(steps=before, name="policy_preprocessor"),
        PolicyProcessorPipeline(
            steps=[DeviceProcessorStep(device="cpu")],
            name="policy_postprocessor",
            to_transition=policy_action_to_transition,
            to_output=transition_to_policy_action,
        ),
    )
