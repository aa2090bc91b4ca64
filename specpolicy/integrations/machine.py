"""A machine that executes a pickle as far as checkpoints need it.

A pickle is a program for a stack machine: it may call any function by its name and set the state of any object.
Python's own machines obey. This one knows the opcodes that protocols 2 to 5 write for containers, text, numbers and
objects. It makes only plain values and the stand-ins of `stand_ins`, and stops at the limits of its budget.
"""

import pickletools
from collections.abc import Callable, Mapping
from typing import IO, Any

import numpy as np

from specpolicy.integrations.arrays import Array, Dtype
from specpolicy.integrations.budget import MOST_OPCODES, MOST_PICKLE_BYTES, Budget, Damaged, Refused
from specpolicy.integrations.containers import Containers
from specpolicy.integrations.stand_ins import CALLED, CLASSES, DTYPES, MENTIONED, Name, Stub, check_key

PUSHED = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BYTEARRAY8"),
    *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set, "EMPTY_TUPLE": tuple}
MOST_BITS = 512  # of a whole number; the random state of an optimiser has 128
PROTOCOL = 5


class _Mark:
    """Marks the start of a list of arguments on the stack."""


MARK = _Mark()


class Machine:
    """Executes one pickle after the other; their costs add up."""

    def __init__(self, storage: Callable[[Any], Any], calls: Mapping[str, Callable[..., Any]], mentioned: set[str]):
        """Make a machine.

        Args:
            storage: answers persistent ids.
            calls, mentioned: names besides those of `stand_ins`.
        """
        self._storage = storage
        self._calls = {**CALLED, **calls}
        self._mentioned = MENTIONED | mentioned | self._calls.keys() | CLASSES.keys()
        self._items = Budget(MOST_OPCODES, "opcodes")
        self._bytes = Budget(4 * MOST_PICKLE_BYTES, "bytes in a pickle")
        self._operations = {name[1:]: getattr(self, name) for name in dir(self) if name[1:].isupper()}

    def run(self, file: IO[bytes]) -> Any:
        """Return the value of the pickle that begins at the file's position.

        Raises:
            Refused: or any error that a damaged pickle causes.
        """
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._containers = Containers()
        for opcode, argument, _ in pickletools.genops(file):
            name = opcode.name
            self._items.spend(1)
            if name in PUSHED:
                self._stack.append(self._checked(argument))
            elif name in CONSTANTS:
                self._stack.append(CONSTANTS[name])
            elif name in EMPTY:
                made = EMPTY[name]()
                self._stack.append(made if name == "EMPTY_TUPLE" else self._containers.add(made))
            elif name == "STOP":
                return self._settled(self._pop())
            elif name in self._operations:
                self._operations[name](argument)
            else:
                raise Refused(f"the opcode {name}")
        raise ValueError("no STOP")

    def _checked(self, value: Any) -> Any:
        if isinstance(value, int) and value.bit_length() > MOST_BITS:
            raise Refused(f"a number of {value.bit_length()} bits")
        if isinstance(value, str | bytes | bytearray):
            self._bytes.spend(len(value))
        if isinstance(value, str) and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:  # half of a surrogate pair, which could be neither shown nor written again
                raise Damaged("text that is no Unicode") from None
        return value

    def _pop(self) -> Any:
        value = self._stack.pop()
        if value is MARK:
            raise ValueError("an argument is missing")
        return value

    def _pop_to_mark(self) -> list[Any]:
        items = []
        while (value := self._stack.pop()) is not MARK:
            items.append(value)
        return items[::-1]

    def _top(self, kind: type) -> Any:
        if type(self._stack[-1]) is not kind:
            raise ValueError(f"no {kind.__name__} to add to")
        return self._stack[-1]

    @staticmethod
    def _settled(value: Any) -> Any:
        """Return the array that now stands for one that was named before it was filled."""
        return value.array if isinstance(value, Array) and value.array is not None else value

    # One method for each opcode, by its name in `pickletools`.

    def _PROTO(self, version: int) -> None:
        if version > PROTOCOL:
            raise Refused(f"protocol {version}")

    def _FRAME(self, length: int) -> None:
        pass

    def _MARK(self, _: None) -> None:
        self._stack.append(MARK)

    def _POP(self, _: None) -> None:
        self._stack.pop()

    def _POP_MARK(self, _: None) -> None:
        self._pop_to_mark()

    def _BINPUT(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    _LONG_BINPUT = _BINPUT

    def _MEMOIZE(self, _: None) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _BINGET(self, index: int) -> None:
        self._stack.append(self._settled(self._memo[index]))

    _LONG_BINGET = _BINGET

    def _tuple(self, items: list[Any]) -> None:
        self._stack.append(self._containers.add(tuple(items), items) if items else ())

    def _TUPLE(self, _: None) -> None:
        self._tuple(self._pop_to_mark())

    def _TUPLE1(self, _: None) -> None:
        self._tuple([self._pop()])

    def _TUPLE2(self, _: None) -> None:
        self._tuple([self._pop(), self._pop()][::-1])

    def _TUPLE3(self, _: None) -> None:
        self._tuple([self._pop(), self._pop(), self._pop()][::-1])

    def _append(self, items: list[Any]) -> None:
        self._containers.add(self._top(list), items).extend(items)

    def _APPEND(self, _: None) -> None:
        self._append([self._pop()])

    def _APPENDS(self, _: None) -> None:
        self._append(self._pop_to_mark())

    def _set(self, items: list[Any]) -> None:
        mapping = self._containers.add(self._top(dict), items)
        for key, value in zip(items[::2], items[1::2], strict=True):
            mapping[check_key(key)] = value

    def _SETITEM(self, _: None) -> None:
        self._set([self._pop(), self._pop()][::-1])

    def _SETITEMS(self, _: None) -> None:
        self._set(self._pop_to_mark())

    def _ADDITEMS(self, _: None) -> None:
        items = self._pop_to_mark()
        self._containers.add(self._top(set), items).update(map(check_key, items))

    def _FROZENSET(self, _: None) -> None:
        items = self._pop_to_mark()
        self._stack.append(self._containers.add(frozenset(map(check_key, items)), items))

    def _GLOBAL(self, full: str) -> None:
        module, _, name = full.partition(" ")
        self._name(module, name)

    def _STACK_GLOBAL(self, _: None) -> None:
        name, module = self._pop(), self._pop()
        self._name(module, name)

    def _name(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("a name that is no text")
        full = f"{module}.{name}"
        if "." in name or full not in self._mentioned | DTYPES.keys():
            raise Refused(full)
        self._stack.append(DTYPES[full] if full in DTYPES else Name(full))

    def _REDUCE(self, _: None) -> None:
        arguments, function = self._pop(), self._pop()
        if type(function) is not Name or function.full not in self._calls or type(arguments) is not tuple:
            raise Refused(f"a call of {function.full if type(function) is Name else type(function).__name__}")
        self._cost(arguments)
        made = self._calls[function.full](*arguments)
        self._cost([made])
        self._stack.append(self._noted(made))

    def _noted(self, made: Any) -> Any:
        if isinstance(made, dict):
            return self._containers.add(made, [item for pair in made.items() for item in pair])
        return self._containers.add(made, list(made)) if isinstance(made, set | frozenset) else made

    def _cost(self, values: Any) -> None:
        """Count the cost of a call that goes through its arguments."""
        for value in values:
            if isinstance(value, list | tuple | dict | set | frozenset):
                self._items.spend(len(value))
            elif isinstance(value, str | bytes | bytearray):
                self._bytes.spend(len(value))
            elif isinstance(value, np.ndarray):
                self._bytes.spend(value.nbytes)

    def _NEWOBJ(self, _: None) -> None:
        arguments, kind = self._pop(), self._pop()
        if type(kind) is not Name or kind.full not in CLASSES or arguments != ():
            raise Refused(f"an object of {kind.full if type(kind) is Name else type(kind).__name__}")
        self._stack.append(CLASSES[kind.full]())

    def _BUILD(self, _: None) -> None:
        state, target = self._pop(), self._stack[-1]
        self._cost([state])
        if isinstance(target, Stub):
            target.state = state
        elif type(target) is Dtype:
            target.set_state(state)
        elif type(target) is Array:
            self._cost(state if isinstance(state, tuple) else ())
            self._stack[-1] = target.set_state(state)
        elif type(target) is not dict or type(state) is not dict or state.keys() - {"_metadata"}:
            # The exception: state dicts carry the versions of modules as an attribute, which nothing here uses.
            raise Refused(f"a state for a {type(target).__name__}")

    def _BINPERSID(self, _: None) -> None:
        self._stack.append(self._storage(self._pop()))
