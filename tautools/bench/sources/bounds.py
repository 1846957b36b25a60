"""What a tool may be given and what a calculation may cost, so that nothing that a model writes stops a run.

Tools run where all conversations of a process run. Two things let a model's words take hours there: an expression that
a tool evaluates (`9**9**8`), and arguments of great depth, number or size. Both are measured before, so a tool is given
only what it finishes at once; what is refused gets a tool's error and a flag in the record.

The standard library is all that this module needs: the program in a tau2-bench checkout's environment loads it too.
"""

import ast
import builtins
import contextlib
import json
import operator
import re
import signal
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

MAX_ARGUMENTS_CHARS = 10_000_000
"""Of a call's arguments as the model wrote them."""
MAX_DEPTH = 100
"""Levels of lists and objects in arguments; inspect's own limit."""
MAX_VALUES = 10_000
"""Values in arguments, those inside of lists and objects counted."""
MAX_PARSED_CHARS = 10_000
"""Of a text that is parsed as something else than JSON: an expression, YAML."""
MAX_STEPS = 10_000_000
"""Multiplications of 30-bit digits that one calculation may take: about a tenth of a second."""
CPU_S = 2.0
"""Processor time of one call in a process of its own [s]; a call takes milliseconds."""

CALCULATION, TIME = "calculation", "time"
"""Flags of what a tool was stopped at; `arguments` is that of a call whose arguments no tool was given."""

_flags: ContextVar[list[str] | None] = ContextVar("flags", default=None)


@contextlib.contextmanager
def noting_flags() -> Iterator[list[str]]:
    """Give the list of the flags of what is refused while the block runs."""
    flags: list[str] = []
    token = _flags.set(flags)
    try:
        yield flags
    finally:
        _flags.reset(token)


def _note(flag: str) -> None:
    flags = _flags.get()
    if flags is not None:
        flags.append(flag)


def why_too_large(text: str) -> str:
    """Return why a tool is not given these arguments; empty when it is, and for a text that is no JSON.

    A text of ordinary size is only counted: what has no hundred brackets is not nested a hundred times.
    """
    if len(text) > MAX_ARGUMENTS_CHARS:
        return f"the arguments are longer than {MAX_ARGUMENTS_CHARS} characters"
    if len(text) <= MAX_VALUES and text.count("[") + text.count("{") <= MAX_DEPTH:
        return ""
    try:
        value = json.loads(text)
    except RecursionError:
        return _TOO_DEEP
    except ValueError:
        return ""  # the source says in its own words that this is no JSON
    return _why_too_large(value)


def shown_arguments(text: str) -> Any:
    """Return a call's arguments as JSON for a reader; the text itself when it is none, or no tool was given it."""
    try:
        return text if why_too_large(text) else json.loads(text or "{}")
    except ValueError:
        return text


_TOO_DEEP = f"the arguments are nested more than {MAX_DEPTH} levels deep"


def _why_too_large(value: Any) -> str:
    level, values = [value], 0
    for _ in range(MAX_DEPTH + 1):
        values += len(level)
        if values > MAX_VALUES:
            return f"the arguments hold more than {MAX_VALUES} values"
        containers = [each for each in level if isinstance(each, dict | list)]
        level = [inner for each in containers for inner in (each.values() if isinstance(each, dict) else each)]
        if not containers:
            return ""
    return _TOO_DEEP


_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_SIGNS: dict[type, Callable[[Any], Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
_GROWTH = 1.585
"""Exponent of what Python's multiplication of two equally long integers costs (Karatsuba)."""


_PLAIN = re.compile(r"[0-9+\-*/(). ]*")
"""Arithmetic; without a power its numbers are as long as its text at most."""


class _TooLargeError(Exception):
    """A calculation would take too long."""


def bounded_eval(source: Any, *scopes: Any) -> Any:
    """Evaluate arithmetic as Python's `eval` does, with its results and its errors, unless that would take too long.

    The expression is walked through first, in the order in which Python evaluates it, and the cost of each operation is
    estimated before it is done. What Python's own `eval` then says is returned or raised.

    Raises
    ------
    OverflowError
        When it would take too long, in the words that Python has for the usual end of such a calculation.
    ValueError
        When it is no arithmetic.
    """
    if isinstance(source, str):
        try:
            _check_calculation(source)
        except _TooLargeError:
            _note(CALCULATION)
            raise OverflowError("int too large to convert to float") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # Python's words about `1(2)` are for programmers
        return builtins.eval(source, *scopes)  # noqa: S307 - arithmetic on numbers, and checked


def _check_calculation(source: str) -> None:
    """Calculate as far as Python would, and raise `_TooLargeError` where that would take too long."""
    if len(source) > MAX_PARSED_CHARS:
        raise _TooLargeError
    if "**" not in source and _PLAIN.fullmatch(source):
        return
    try:
        tree = ast.parse(source.lstrip(" \t"), mode="eval").body
    except SyntaxError:
        return  # Python's own words about it are the answer
    with contextlib.suppress(ArithmeticError, TypeError, MemoryError):  # where this ends, Python ends too
        _calculate(tree)


def _calculate(tree: ast.expr) -> None:
    values: list[Any] = []
    todo: list[tuple[ast.AST, bool]] = [(tree, False)]
    steps = 0.0
    while todo:
        node, operands_done = todo.pop()
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            if not operands_done:
                todo += [(node, True), (node.right, False), (node.left, False)]
                continue
            right, left = values.pop(), values.pop()
            steps += _steps(node.op, left, right)
            if steps > MAX_STEPS:
                raise _TooLargeError
            values.append(_OPERATORS[type(node.op)](left, right))
        elif isinstance(node, ast.UnaryOp) and type(node.op) in _SIGNS:
            if not operands_done:
                todo += [(node, True), (node.operand, False)]
                continue
            steps += _digits(values[-1])
            values.append(_SIGNS[type(node.op)](values.pop()))
        elif isinstance(node, ast.Call):
            # Numbers cannot be called: Python stops at the first call, once it has what stands in it.
            if operands_done:
                raise TypeError
            todo.append((node, True))
            todo += [(each, False) for each in reversed([node.func, *node.args, *(k.value for k in node.keywords)])]
        elif isinstance(node, ast.Starred):
            todo.append((node.value, False))
        else:
            values.append(_atom(node))


def _atom(node: ast.AST) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float | complex | type(...)):
        return node.value
    if isinstance(node, ast.Tuple) and not node.elts:
        return ()
    raise ValueError("only arithmetic can be evaluated")


def _digits(value: Any) -> int:
    """Return how many digits of 30 bits a number has; 1 for all but integers."""
    return value.bit_length() // 30 + 1 if isinstance(value, int) else 1


def _steps(operation: ast.operator, left: Any, right: Any) -> float:
    """Estimate what an operation costs, in multiplications of two digits."""
    a, b = _digits(left), _digits(right)
    if isinstance(operation, ast.Pow) and isinstance(left, int) and isinstance(right, int) and right > 0:
        # By the length of what comes out, which is 1 for 1 and -1 whatever the exponent.
        return float(b) if abs(left) < 2 else max(1.0, min(left.bit_length() * right, 30 * MAX_STEPS) / 30) ** _GROWTH
    if isinstance(operation, ast.Mult):
        return float(max(a, b) * min(a, b) ** (_GROWTH - 1))
    if isinstance(operation, ast.FloorDiv | ast.Mod):
        return float(max(a - b, 1) * b)
    return float(a + b)


class OutOfTimeError(BaseException):
    """A call has used its processor time up; no tool's own `except Exception` takes it."""


@contextlib.contextmanager
def limited_cpu(seconds: float = CPU_S) -> Iterator[None]:
    """Raise `OutOfTimeError` in the block when it takes more processor time; for a program's main thread alone."""

    def give_up(*_: Any) -> None:
        _note(TIME)
        raise OutOfTimeError(f"it did not end within {seconds:g} s of processor time")

    signal.signal(signal.SIGVTALRM, give_up)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
