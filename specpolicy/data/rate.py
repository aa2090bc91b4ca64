"""Compares the rate of the data with that of the task: train unchanged, drop frames, or refuse."""

from specpolicy.errors import SpecpolicyError
from specpolicy.rates import TOLERANCE, same_rate


def settle_rate(
    data_hz: float | None,
    task_hz: float | None,
    resample: bool = False,
    any_rate: bool = False,
) -> tuple[float | None, int]:
    """Return the training data's control steps per second, and n where every n-th frame is used.

    Args:
        data_hz, task_hz: None where unknown.
        resample: drop frames where the data's rate is a multiple of the task's. Frames are never invented, and a kept
            frame keeps its action. That is right for targets (poses, positions), not for changes of pose, because the
            dropped changes would be missing.
        any_rate: train at the data's rate although the task has another.

    Raises:
        SpecpolicyError: the rates differ and neither option is set; frames cannot be dropped.
    """
    if resample:
        if data_hz is None or task_hz is None:
            missing, remedy = ("data's", "give data_hz=") if data_hz is None else ("task's", "leave resample out")
            raise SpecpolicyError(f"resample=true: the {missing} control steps per second are not known: {remedy}")
        stride = round(data_hz / task_hz)
        if stride < 1 or not same_rate(data_hz, stride * task_hz):
            raise SpecpolicyError(
                f"resample=true: {task_hz:g} Hz cannot be made of {data_hz:g} Hz by leaving out frames, which is all "
                "that is done here: record or convert the data at the task's rate"
            )
        return data_hz / stride, stride
    if any_rate or same_rate(data_hz, task_hz):
        return data_hz, 1
    assert data_hz is not None and task_hz is not None  # an unknown rate never counts as different
    multiple = data_hz / task_hz
    whole = round(multiple) > 1 and abs(multiple / round(multiple) - 1) <= TOLERANCE
    can = f"resample=true takes every {_ordinal(round(multiple))} frame, " if whole else ""
    raise SpecpolicyError(
        f"the data has {data_hz:g} control steps per second, the task {task_hz:g}: {can}"
        f"any_rate=true trains a policy of {data_hz:g} Hz all the same"
    )


def _ordinal(number: int) -> str:
    return {2: "second", 3: "third"}.get(number, f"{number}th")
