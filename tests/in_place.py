"""What an engine captures, run operation by operation on the machine at hand."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from specpolicy.engines.capture import write_over


class InPlace:
    """See `specpolicy.engines.capture.Capture`.

    `signatures`: by function, filled with the operations of each run. `hidden`: from whoever counts operations, as
    those of a graph are.
    """

    def __init__(self, network, signatures=None, hidden=False):
        self.network, self.signatures, self.hidden = network, signatures, hidden

    def __call__(self, function, values):
        function(values)  # tables are made in the first run
        found = [] if self.signatures is None else self.signatures.setdefault(id(function), [])

        def run():
            if self.hidden:
                with _disable_current_modes():
                    return write_over(function, values)
            if self.signatures is None:
                return write_over(function, values)
            with Signature() as signature:
                says = write_over(function, values)
            found.append(signature.found())
            return says

        return run


class Signature(TorchDispatchMode):
    """The operations that are launched, with the shapes of what they are given."""

    def __init__(self):
        super().__init__()
        self._seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        shapes = [tuple(value.shape) for value in args if isinstance(value, torch.Tensor)]
        self._seen.append((str(func), str(shapes)))
        return func(*args, **(kwargs or {}))

    def found(self):
        """All of them, in order."""
        return tuple(self._seen)
