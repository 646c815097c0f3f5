"""Conditions of a search space, `lora_rank >= 16 and schedule == "wsd"`: parsed here, never run by Python.

Comparisons of a `Recipe` field with a constant, joined by and, or, not. There is nothing else in
the language, so that a space from elsewhere can't run code.
"""

from __future__ import annotations

import ast
import difflib
import operator
from collections.abc import Callable, Mapping
from functools import cache
from itertools import pairwise

from sweep.errors import SpaceError
from sweep.search.ranges import KINDS

_EXAMPLE = "Write it like `lora_rank >= 16 and schedule == 'wsd'`."
_LONGEST = 200
_ORDERS: Mapping[type[ast.cmpop], Callable[..., bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_OPERATORS: Mapping[type[ast.cmpop], Callable[..., bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    **_ORDERS,
}


def check(when: str, path: str) -> None:
    """Nothing, or SpaceError: `when`, found at `path`, is no condition on `Recipe` fields."""
    try:
        _check(_parsed(when), path)
    except (SyntaxError, ValueError) as error:
        raise SpaceError(f"{path}: {when!r} is no condition: {error}. {_EXAMPLE}") from error


def names(when: str) -> frozenset[str]:
    """The `Recipe` fields that a checked condition looks at."""
    return frozenset(node.id for node in ast.walk(_parsed(when)) if isinstance(node, ast.Name))


def holds(when: str, values: Mapping[str, object]) -> bool:
    """Whether a checked condition holds for these values of `Recipe` fields."""
    return _holds(_parsed(when), values)


@cache
def _parsed(when: str) -> ast.expr:
    if len(when) > _LONGEST:
        raise ValueError(f"it has {len(when)} characters, at most {_LONGEST} are allowed")
    return ast.parse(when.strip(), mode="eval").body


def _check(node: ast.expr, path: str) -> None:
    match node:
        case ast.BoolOp(values=parts):
            for part in parts:
                _check(part, path)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            _check(operand, path)
        case ast.Compare(left=left, ops=signs, comparators=rest):
            for (one, other), sign in zip(pairwise([left, *rest]), signs, strict=True):
                _check_pair(one, other, sign, path)
        case _:
            raise SpaceError(
                f"{path}: `{ast.unparse(node)}` is not allowed; only comparisons of a recipe field with a "
                f"constant, joined by and, or, not. {_EXAMPLE}"
            )


def _check_pair(one: ast.expr, other: ast.expr, sign: ast.cmpop, path: str) -> None:
    match one, other:
        case (ast.Name(id=name), ast.Constant(value=constant)) | (
            ast.Constant(value=constant),
            ast.Name(id=name),
        ):
            pass
        case _:
            raise SpaceError(
                f"{path}: `{ast.unparse(one)}` is compared with `{ast.unparse(other)}`; one must be a recipe "
                f"field, the other a constant. {_EXAMPLE}"
            )
    if name not in KINDS:
        nearest = difflib.get_close_matches(name, KINDS, n=1, cutoff=0)[0]
        raise SpaceError(f"{path}: `{name}` is no recipe field. Did you mean `{nearest}`?")
    if type(sign) not in _OPERATORS:
        raise SpaceError(f"{path}: only ==, !=, <, <=, >, >= compare; write `or` between several values.")
    number = KINDS[name] in (int, float)
    fits = (int, float) if number else bool if KINDS[name] is bool else str
    if not isinstance(constant, fits) or (number and isinstance(constant, bool)):
        kind = "a number" if number else "True or False" if KINDS[name] is bool else "a string in quotes"
        raise SpaceError(f"{path}: `{name}` is compared with {constant!r}; {kind} must stand there.")
    if not number and type(sign) in _ORDERS:
        raise SpaceError(f"{path}: the values of `{name}` have no order; compare it with == or !=.")


def _holds(node: ast.expr, values: Mapping[str, object]) -> bool:
    match node:
        case ast.BoolOp(op=ast.And(), values=parts):
            return all(_holds(part, values) for part in parts)
        case ast.BoolOp(values=parts):
            return any(_holds(part, values) for part in parts)
        case ast.UnaryOp(operand=operand):
            return not _holds(operand, values)
        case ast.Compare(left=left, ops=signs, comparators=rest):
            operands = [_value(operand, values) for operand in (left, *rest)]
            pairs = zip(pairwise(operands), signs, strict=True)
            return all(_OPERATORS[type(sign)](one, other) for (one, other), sign in pairs)
    raise AssertionError(f"unchecked condition {ast.unparse(node)}")


def _value(node: ast.expr, values: Mapping[str, object]) -> object:
    if isinstance(node, ast.Name):
        return values[node.id]
    assert isinstance(node, ast.Constant)
    return node.value
