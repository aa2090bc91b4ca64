"""Sets random streams back, so that a second attempt draws the same numbers."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch


def rewinder(streams: Sequence[Any]) -> Callable[[], None]:
    """Remember the state of streams; return a function that sets them back to it.

    A service defines its streams. Generators of torch and of numpy are set back; others, such as a number, have no
    state.
    """
    torchs = [(stream, stream.get_state()) for stream in streams if isinstance(stream, torch.Generator)]
    numpys = [(stream, stream.bit_generator.state) for stream in streams if isinstance(stream, np.random.Generator)]

    def rewind() -> None:
        for stream, state in torchs:
            stream.set_state(state)
        for generator, known in numpys:
            generator.bit_generator.state = known

    return rewind
