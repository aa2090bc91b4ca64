"""A pilot in a simulated world, control step by control step."""

import numpy as np

from specpolicy.control.execution import Execution
from specpolicy.control.pilot import Pilot
from specpolicy.control.worker import InlineWorker


def observation(step):
    return {"step": np.array(float(step))}


def fly(planner, clock, steps=16, limits=None, **options):
    """The first entries of the actions of `steps` control steps, whether they were sent, and the log."""
    worker = InlineWorker(planner)
    worker.reset(0)
    clock.reset(0)
    pilot = Pilot(worker, clock, 10, Execution(**options), limits)
    pilot.begin(observation(0))
    commands = [pilot.tick(step, step / 10, observation(step)) for step in range(steps)]
    return [command.action[0] for command in commands], [command.send for command in commands], pilot.log
