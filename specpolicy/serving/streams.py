"""Random streams set back: what is planned again is drawn again with the same numbers."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch


def rewinder(streams: Sequence[Any]) -> Callable[[], None]:
    """Remember where streams are; what is returned sets them back there.

    Streams are what a service says they are. Those that draw, generators of torch and of numpy, are set back; others,
    such as a number, have no state.
    """
    torchs = [(stream, stream.get_state()) for stream in streams if isinstance(stream, torch.Generator)]
    numpys = [(stream, stream.bit_generator.state) for stream in streams if isinstance(stream, np.random.Generator)]

    def rewind() -> None:
        for stream, state in torchs:
            stream.set_state(state)
        for generator, known in numpys:
            generator.bit_generator.state = known

    return rewind
