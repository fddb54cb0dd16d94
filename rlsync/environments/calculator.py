"""A calculator that the model calls: a turn that ends in <<12*34>> is answered with 408."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from fractions import Fraction

from rlsync.environments.base import Environment, Observation

CALL_BEGIN, CALL_END = "<<", ">>"
_CALL = re.compile(rf"{CALL_BEGIN}([^<>]*){CALL_END}\s*\Z")
_MAX_CHARACTERS = 200
"""Of an expression; it bounds the depth of the tree too."""
_MAX_BITS = 512
"""Of a number's numerator and denominator."""
_MAX_EXPONENT = 512
_DECIMALS = 12
"""Significant digits of a number that is no integer."""

_BINARY: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: lambda a, b: Fraction(a // b),
    ast.Mod: operator.mod,
}
_UNARY: dict[type[ast.unaryop], Callable[[Fraction], Fraction]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}


class Calculator(Environment):
    """Ends the conversation at a turn that does not end in a call. What it cannot compute it answers with an error."""

    def step(self, action: str) -> Observation | None:
        found = _CALL.search(action)
        if found is None:
            return None
        try:
            text = calculate(found[1])
        except CalculationError as error:
            text = f"error: {error}"
        return Observation(text=text)


class CalculationError(ValueError):
    """An expression that the calculator does not take; the message is for the model."""


def calculate(expression: str) -> str:
    """The value of + - * / // % ** and parentheses on decimal numbers, exactly; at most 12 digits if no integer.

    The expression is a model's: it is parsed, never run, and no intermediate number grows beyond 512 bits.

    Raises:
        CalculationError: it is no such expression, or too long, or a number in it would be too large.
    """
    if len(expression) > _MAX_CHARACTERS:
        raise CalculationError("too long")
    try:
        value = _value(ast.parse(expression.strip(), mode="eval").body)
    except ZeroDivisionError:
        raise CalculationError("division by zero") from None
    except CalculationError:
        raise
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise CalculationError("not understood") from None
    return str(value.numerator) if value.denominator == 1 else f"{float(value):.{_DECIMALS}g}"


def _value(node: ast.expr) -> Fraction:
    match node:
        # By type, as True is an int to isinstance. repr gives the decimal that was written, not its nearest double.
        case ast.Constant(value=number) if type(number) in (int, float):
            return _bounded(Fraction(repr(number)))
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return _UNARY[type(op)](_value(operand))
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(_value(left), _value(right))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _bounded(_BINARY[type(op)](_value(left), _value(right)))
    raise CalculationError("not understood")


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1 or abs(exponent) > _MAX_EXPONENT:
        raise CalculationError("exponent not understood")
    if _bits(base) * abs(exponent) > 2 * _MAX_BITS:  # before it is computed
        raise CalculationError("too large")
    return _bounded(Fraction(base ** int(exponent)))


def _bounded(value: Fraction) -> Fraction:
    if _bits(value) > _MAX_BITS:
        raise CalculationError("too large")
    return value


def _bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())
