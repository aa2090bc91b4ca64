"""Size and depth of a pickle's containers, counting shared items each time."""

from typing import Any

from specpolicy.integrations.budget import MOST_DEPTH, MOST_ITEMS, Refused

STORED = 64  # this many characters count as one item


class Containers:
    """Depth and number of items of containers, counting shared items each time.

    A container gets its items before it is put into another one, as in all picklers, so it cannot contain itself.
    Walking through it, comparing it and showing it always end.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[Any, int, int]] = {}  # holds the containers, so that no other one gets the same id
        self._placed: set[int] = set()

    def add(self, container: Any, items: Any = ()) -> Any:
        """Record a container, or more items in it."""
        key = id(container)
        _, depth, weight = self._known.get(key, (None, 1, 1))
        for item in items:
            _, below, amount = self._known.get(id(item), (None, 0, 1))
            if isinstance(item, str | bytes | bytearray):
                amount = 1 + len(item) // STORED
            elif below:
                self._placed.add(id(item))
            depth, weight = max(depth, below + 1), weight + amount
        if key in self._placed:
            raise Refused("a container that is changed after it was put into another one")
        if depth > MOST_DEPTH:
            raise Refused(f"containers in containers, deeper than {MOST_DEPTH}")
        if weight > MOST_ITEMS:
            raise Refused(f"a container of more than {MOST_ITEMS} items")
        self._known[key] = (container, depth, weight)
        return container
