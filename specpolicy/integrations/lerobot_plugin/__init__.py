"""A policy type of LeRobot, `specpolicy`: its rollout and evaluation draw chunks by our samplers.

    lerobot-rollout --discover_packages_path=specpolicy.integrations.lerobot_plugin \\
        --policy.type=specpolicy --policy.source=outputs/train/mine/checkpoints/last/pretrained_model \\
        --policy.sampler=recycled --robot.type=so101_follower --robot.port=/dev/ttyACM0 --robot.id=mine

The modules have the names by which LeRobot finds a policy of a configuration. They import lerobot.
"""

from specpolicy.integrations.lerobot_plugin.configuration_specpolicy import SpecpolicyConfig

__all__ = ["SpecpolicyConfig"]
