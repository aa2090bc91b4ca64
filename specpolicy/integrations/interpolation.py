"""Hydra configurations that were saved with unresolved interpolations: `${horizon}`, `${eval:'1+${n}'}`."""

import ast
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from specpolicy.errors import SpecpolicyError
from specpolicy.parsing import shown

INNERMOST = re.compile(r"\$\{([^${}]*)\}")
DEEPEST = 50  # deeper than any real configuration; a cycle ends here
MOST_STEPS = 20_000  # look-ups in all; a real configuration has a few thousand values, each looked up once
LONGEST = 10_000  # characters of a text with interpolations, before and after
WORTH = 100  # so many characters of such a text cost as much as a value
FORMULA = 500  # characters of a formula
LARGEST = 2**63  # bound on its numbers
OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


class Config:
    """A nested mapping; `get("policy.horizon")` follows dots and resolves interpolations on the way."""

    def __init__(self, root: Mapping[str, Any], where: str):
        """`where` names the file in errors."""
        self._root, self._where = root, where
        self._depth, self._steps = 0, 0

    def get(self, path: str, default: Any = None) -> Any:
        """Return the value at a dotted path, resolved; `default` if there is none."""
        node: Any = self._root
        for name in path.split("."):
            node = self._resolve(node)
            if isinstance(node, list) and name.isdigit() and int(name) < len(node):
                node = node[int(name)]
            elif isinstance(node, Mapping) and name in node:
                node = node[name]
            else:
                return default
        return self._resolve_all(node)

    def need(self, path: str) -> Any:
        """Return the value at a dotted path.

        Raises:
            SpecpolicyError: there is none.
        """
        value = self.get(path)
        if value is None:
            raise SpecpolicyError(f"{self._where}: its configuration lacks '{path}'")
        return value

    def _resolve_all(self, node: Any) -> Any:
        node = self._resolve(node)
        if isinstance(node, Mapping):
            return {key: self._resolve_all(value) for key, value in node.items()}
        return [self._resolve_all(value) for value in node] if isinstance(node, list) else node

    def _resolve(self, value: Any) -> Any:
        if self._depth > DEEPEST:
            raise SpecpolicyError(f"{self._where}: an interpolation in its configuration never ends ({shown(value)})")
        self._depth += 1
        self._step(value)
        while isinstance(value, str) and (match := INNERMOST.search(value)):
            self._step(value)
            found = self._evaluate(match[1].strip())
            whole = match.span() == (0, len(value))
            value = found if whole else self._put(self._text(found), value, match)
        self._depth -= 1
        return value

    def _step(self, value: Any) -> None:
        """Count a look-up: of fifty texts that each hold the next one twice, each is short, but the last result is
        not."""
        self._steps += 1 + (len(value) // WORTH if isinstance(value, str) and "${" in value else 0)
        if self._steps > MOST_STEPS:
            raise SpecpolicyError(
                f"{self._where}: the interpolations in its configuration come to more than {MOST_STEPS}"
            )
        if isinstance(value, str) and len(value) > LONGEST and "${" in value:
            raise SpecpolicyError(f"{self._where}: an interpolation in its configuration is too long ({shown(value)})")

    def _put(self, text: str, value: str, match: re.Match) -> str:
        """Return `value` with a text in place of an interpolation; a text in many places is copied into each."""
        if len(value) + len(text) > LONGEST:
            raise SpecpolicyError(f"{self._where}: an interpolation in its configuration is too long ({shown(value)})")
        return value[: match.start()] + text + value[match.end() :]

    def _text(self, value: Any) -> str:
        """Return a value for the middle of a text; lists only if they are short and flat."""
        many = value if isinstance(value, list) else [value]
        if len(many) > DEEPEST or any(isinstance(one, Mapping | list) for one in many):
            raise SpecpolicyError(f"{self._where}: its configuration puts {shown(value)} into a text")
        return str(value)

    def _evaluate(self, inner: str) -> Any:
        resolver, colon, argument = inner.partition(":")
        if not colon:
            return self.get(inner)
        if resolver == "eval":
            return calculate(argument.strip().strip("'\""), self._where)
        return f"({inner})"  # such as ${now:...}: a name or a date, which no policy is built from


def calculate(text: str, where: str) -> Any:
    """Return the value of a formula of numbers, as configurations put into `eval`, without Python's eval.

    Raises:
        SpecpolicyError: anything but numbers, arithmetic, comparison, `and`, `or`, `not` and a choice.
    """

    def value(node: ast.AST) -> Any:
        found = calculated(node)
        if isinstance(found, int | float) and not -LARGEST < found < LARGEST:  # refuses NaN, too
            raise ValueError
        return found

    def calculated(node: ast.AST) -> Any:
        match node:
            case ast.Expression(body):
                return value(body)
            case ast.Constant(constant) if constant is None or isinstance(constant, int | float):
                return constant
            case ast.UnaryOp(op, operand) if type(op) in OPERATORS:
                return OPERATORS[type(op)](value(operand))
            case ast.UnaryOp(ast.Not(), operand):
                return not value(operand)
            case ast.BinOp(left, op, right) if type(op) in OPERATORS:
                return OPERATORS[type(op)](value(left), value(right))
            case ast.Compare(left, [op], [right]) if type(op) in OPERATORS:
                return OPERATORS[type(op)](value(left), value(right))
            case ast.BoolOp(op, operands):
                for operand in operands:  # the first deciding operand, as in Python
                    found = value(operand)
                    if bool(found) == isinstance(op, ast.Or):
                        break
                return found
            case ast.IfExp(test, body, orelse):
                return value(body) if value(test) else value(orelse)
        raise ValueError

    try:
        if len(text) > FORMULA:
            raise ValueError
        return value(ast.parse(text, mode="eval"))
    except (ValueError, SyntaxError, TypeError, ArithmeticError, RecursionError, MemoryError):
        raise SpecpolicyError(f"{where}: cannot calculate {shown(text)} in its configuration") from None
