"""Check our robot adapter and our policy type with LeRobot itself: its base class, its registry, its rollout and
its evaluation.

Needs LeRobot (with its extra `dataset`, which its rollout imports) and specpolicy in one environment, with Python 3.12.
scripts/lerobot_environment.sh makes one and runs this, too:

    pip install 'lerobot[diffusion,dataset,feetech]' gym-pusht && pip install '.[cli]'
    python scripts/check_lerobot_robot.py [CHECKPOINT]     # one of LeRobot's; default tests/data/lerobot_state

Prints a line for each check and exits with 1 if one fails. No hardware is needed: the robot is made up, of LeRobot's
own classes.
"""

import importlib.util
import inspect
import sys
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from made_up_robots import MadeUpArm, PretendedBus

import specpolicy
from specpolicy.control import Chunk, Controller, Limits
from specpolicy.integrations.lerobot import RobotAdapter
from specpolicy.integrations.lerobot.registry import make_robot

ROOT = Path(__file__).parents[1]
FAILED: list[str] = []


def check(what: str, right: bool) -> None:
    """Print a line, and remember what failed."""
    print(f"{'ok    ' if right else 'FAILED'} {what}")
    if not right:
        FAILED.append(what)


class Goal:
    """A planner that always plans the same action."""

    n_obs_steps, n_action_steps = 1, 4

    def __init__(self, action: np.ndarray):
        self.action = action

    def reset(self, seed: int) -> None:
        pass

    def plan(self, history: dict) -> Chunk:
        return Chunk(np.tile(self.action, (8, 1)))


def adapter() -> None:
    """LeRobot's base class under our control loop."""
    arm = make_robot("made_up_arm", {"id": "mine", "most": 2.0})
    check("LeRobot's registry makes the robot of a configuration", type(arm) is MadeUpArm and arm.config.most == 2.0)
    with RobotAdapter(arm, units="degrees_to_radians") as robot:
        log = Controller(Goal(np.full(3, 5.0)), robot, hz=50, worker="thread", limits=Limits(high=6)).run(seconds=0.5)
    check("a run moves it, and disconnects it", len(arm.sent) > 10 and arm.disconnects == 1 and not arm.is_connected)
    check("what it really sent is known", np.allclose(arm.sent[0]["pan.pos"], 2.0) and robot.changed > 0)
    check(
        "radians become degrees, and what is normalised stays",
        arm.sent[-1]["gripper.pos"] == 5.0 < arm.sent[-1]["pan.pos"],
    )
    check("the run ended by its time", log.end.cause == "the time was over")
    for what, config, words in (
        ("an unknown robot", ("so101_folower", {}), "did you mean 'so101_follower'"),
        ("an unknown field", ("made_up_arm", {"joint": 3}), "joint"),
        ("a port that is none", ("made_up_arm", {"port": "nowhere"}), "no such port"),
    ):
        try:
            RobotAdapter(make_robot(*config)).connect()
        except specpolicy.SpecpolicyError as error:
            check(f"{what} is one line: {error}", words in str(error) and "\n" not in str(error))
        else:
            check(f"{what} is refused", False)


def so101() -> None:
    """LeRobot's own SO-101 on a pretended bus."""
    with mock.patch("lerobot.robots.so_follower.so_follower.FeetechMotorsBus", PretendedBus):
        arm = make_robot("so101_follower", {"port": "/dev/none", "id": "mine", "max_relative_target": 0.5})
    goal = np.array([0.1] * 5 + [20.0])
    with RobotAdapter(arm, units="degrees_to_radians") as robot:
        stands = robot.position()
        Controller(Goal(goal), robot, hz=50, worker="thread", limits=Limits(rate=100)).run(seconds=0.3)
    check("so101_follower stands where its bus says", np.allclose(stands, [*[np.radians(10.0)] * 5, 10.0]))
    check("so101_follower moves, by no more than max_relative_target", 10 < arm.bus.positions["gripper"] <= 18)
    check("its angles fall towards 0.1 rad", np.degrees(0.1) - 1e-3 <= arm.bus.positions["elbow_flex"] < 10)
    check("so101_follower is disconnected, its motors released", arm.bus.released is True and robot.changed > 0)


def rollout() -> None:
    """LeRobot's rollout with our policy type: waiting for chunks, by LeRobot's rtc, and beside its loop."""
    from lerobot.scripts import lerobot_rollout

    from specpolicy.policy import base, sampler

    drawn, draw = [], sampler.draw

    def recorded(*arguments):
        drawn.append(inspect.signature(draw).bind(*arguments).arguments.get("committed"))
        return draw(*arguments)

    rtc = ["--inference.type=rtc", "--inference.rtc.execution_horizon=4", "--inference.queue_threshold=2"]
    ways = {"sync": (2, []), "rtc": (1, rtc), "beside": (2, ["--policy.hz=10", "--policy.stitching=rtc"])}
    with (
        tempfile.TemporaryDirectory() as directory,
        mock.patch.object(sampler, "draw", recorded),
        mock.patch.object(base, "draw", recorded),
    ):
        for name, (frames, options) in ways.items():
            sys.argv = [
                "lerobot-rollout",
                "--discover_packages_path=specpolicy.integrations.lerobot_plugin",
                "--policy.type=specpolicy",
                f"--policy.source={made_up_policy(frames).save(Path(directory) / name)}",
                "--policy.sampler=block",
                "--policy.device=cpu",
                "--robot.type=made_up_arm",
                *options,
                "--duration=4",
                "--fps=10",
                "--return_to_initial_position=false",
            ]
            before = len(MadeUpArm.made)
            drawn.clear()
            lerobot_rollout.main()
            arm = MadeUpArm.made[before]
            told = f"lerobot-rollout, {name}: {len(arm.sent)} actions of {len(drawn)} chunks by our sampler"
            check(told, len(drawn) > 2 and len(arm.sent) > 8 and not arm.is_connected)
            continued = sum(known is not None for known in drawn)
            check(f"{continued} of them continue what is executed", (continued > 0) == (name != "sync"))


def evaluation() -> None:
    """LeRobot's evaluation with our policy type, two environments at a time, where its Push-T is installed."""
    if importlib.util.find_spec("gym_pusht") is None:
        print("left   out: lerobot-eval, as gym-pusht is not installed")
        return
    from lerobot.scripts import lerobot_eval

    from specpolicy.policy import sampler

    sizes, draw = [], sampler.draw

    def recorded(*arguments):
        out = draw(*arguments)
        sizes.append(len(out.actions))
        return out

    pixels = {"scale": 1 / 256, "offset": -1.0}
    with tempfile.TemporaryDirectory() as directory, mock.patch.object(sampler, "draw", recorded):
        observed = {"observation.state": 2, "observation.environment_state": 16}
        ours = made_up_policy(2, observed, 2, **pixels).save(Path(directory) / "policy")
        sys.argv = [
            "lerobot-eval",
            "--discover_packages_path=specpolicy.integrations.lerobot_plugin",
            "--policy.type=specpolicy",
            f"--policy.source={ours}",
            "--policy.sampler=block",
            "--policy.device=cpu",
            "--env.type=pusht",
            "--env.obs_type=environment_state_agent_pos",
            "--env.episode_length=12",
            "--eval.n_episodes=2",
            "--eval.batch_size=2",
            "--eval.use_async_envs=false",
            f"--output_dir={directory}/out",
        ]
        lerobot_eval.main()
        told = (Path(directory) / "out" / "eval_info.json").exists()
    check(f"lerobot-eval: {len(sizes)} batches of two chunks by our sampler", sizes == [2] * 3 and told)


def verb() -> None:
    """`specpolicy control robot=lerobot:...`, where its command line is installed."""
    if importlib.util.find_spec("hydra") is None:
        print("left   out: specpolicy control, as specpolicy[cli] is not installed")
        return
    from specpolicy.cli import main

    with tempfile.TemporaryDirectory() as directory:
        ours = made_up_policy().save(Path(directory) / "policy")
        before = len(MadeUpArm.made)
        settings = ["hz=10", "max_seconds=2", "worker=thread", "lead=2", "watchdog=10", "limits.rate=50"]
        where = [f"policy={ours}", f"output={directory}/out", "robot=lerobot:made_up_arm", "+robot.config.most=2"]
        code = main(["control", *where, *settings])
    arm = MadeUpArm.made[before]
    check(f"specpolicy control: {len(arm.sent)} actions", code == 0 and len(arm.sent) > 5 and arm.disconnects == 1)


def made_up_policy(
    frames: int = 1, observed: dict | None = None, action_dim: int = 3, scale: float = 0.05, offset: float = 0.0
):
    """Return a small policy of ours; by default it observes three joints and moves them."""
    from specpolicy.policy import DiffusionPolicy

    torch.manual_seed(0)
    observed = observed or {"observation.state": 3}
    sizes = {**observed, "action": action_dim}
    config = {
        "network": {"kind": "unet", "diffusion_step_embed_dim": 16, "down_dims": [16, 32], "kernel_size": 3},
        "chain": {"train_steps": 20, "steps": 20},
        "observation": observed,
        "action_dim": action_dim,
        "horizon": 8,
        "n_obs_steps": frames,
        "n_action_steps": 4,
        "normaliser": {name: {"scale": [scale] * size, "offset": [offset] * size} for name, size in sizes.items()},
    }
    return DiffusionPolicy.from_config(config)


def same_chunks(checkpoint: str) -> None:
    """The policy type `specpolicy` with the sequential sampler draws LeRobot's own chunks."""
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
    from lerobot.policies.factory import get_policy_class, make_pre_post_processors

    import specpolicy.integrations.lerobot_plugin as plugin

    theirs = DiffusionPolicy.from_pretrained(checkpoint).eval()
    before, after = make_pre_post_processors(theirs.config, pretrained_path=checkpoint)
    config = plugin.SpecpolicyConfig(source=checkpoint, sampler="ddpm", engine="eager", device="cpu")
    ours = get_policy_class("specpolicy")(config)
    our_before, our_after = make_pre_post_processors(config)
    frames = [
        {name: torch.rand(feature.shape) for name, feature in theirs.config.input_features.items()} for _ in range(9)
    ]
    torch.manual_seed(0)
    with torch.inference_mode():
        wanted = [after(theirs.select_action(before(dict(frame)))) for frame in frames]
        found = [our_after(ours.select_action(our_before(dict(frame)))) for frame in frames]
    error = max(float((one - two).abs().max()) for one, two in zip(wanted, found, strict=True))
    check(f"nine actions of two chunks are LeRobot's own, to {error:.1g}", error < 1e-4)


if __name__ == "__main__":
    where = sys.argv[1] if sys.argv[1:] else str(ROOT / "tests" / "data" / "lerobot_state")
    adapter()
    so101()
    verb()
    same_chunks(where)
    rollout()
    evaluation()
    sys.exit(bool(FAILED))
