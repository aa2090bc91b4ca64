"""Processors around LeRobot's policy type `specpolicy`: a batch axis, tokens of the task's text for policies that read
it, and devices. The policy normalises by itself."""

from pathlib import Path
from typing import Any

from lerobot.processor import (
    AddBatchDimensionProcessorStep,
    DeviceProcessorStep,
    PolicyProcessorPipeline,
    RenameObservationsProcessorStep,
    TokenizerProcessorStep,
)
from lerobot.processor.converters import policy_action_to_transition, transition_to_policy_action

from specpolicy.integrations.lerobot.processors import BEFORE, read_processor
from specpolicy.integrations.lerobot_plugin.configuration_specpolicy import SpecpolicyConfig


def make_specpolicy_pre_post_processors(config: SpecpolicyConfig, dataset_stats: Any = None) -> tuple[Any, Any]:
    """Return LeRobot's processors before and after the policy; LeRobot finds this function by its name."""
    before = [
        RenameObservationsProcessorStep(rename_map={}),
        AddBatchDimensionProcessorStep(),
        *tokenisers(config.source),
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


def makes_tokens(source: str) -> bool:
    """Whether LeRobot has saved at `source` how it makes tokens of a text."""
    file = Path(source) / BEFORE
    return file.is_file() and read_processor(file, language=True).tokenise is not None


def tokenisers(source: str) -> list[Any]:
    """Return LeRobot's own step that makes tokens, as it was saved at `source`; none where nothing reads a text."""
    if not makes_tokens(source):
        return []
    saved = PolicyProcessorPipeline.from_pretrained(source, config_filename=BEFORE)
    return [step for step in saved.steps if isinstance(step, TokenizerProcessorStep)]
