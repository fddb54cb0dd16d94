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
"""Longest expression, which also limits the depth of its syntax tree."""
_MAX_BITS = 512
"""Most bits of a number's numerator and of its denominator."""
_MAX_EXPONENT = 512
_DECIMALS = 12
"""Significant digits of a number that is not an integer."""

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
    """Answers a turn that ends in a call with the value, or with an error; any other turn ends the conversation."""

    def step(self, action: str) -> Observation | None:
        """Return the value of the call at the end of the turn, or None if there is no call."""
        found = _CALL.search(action)
        if found is None:
            return None
        try:
            text = calculate(found[1])
        except CalculationError as error:
            text = f"error: {error}"
        return Observation(text=text)


class CalculationError(ValueError):
    """The calculator cannot compute an expression; the message is for the model."""


def calculate(expression: str) -> str:
    """Compute an expression of decimal numbers, + - * / // % ** and parentheses, with exact fractions.

    The model writes the expression, so it is parsed and never executed, and no intermediate number exceeds 512 bits.

    Returns:
        The value as text; if it is not an integer, with 12 significant digits.

    Raises:
        CalculationError: The expression is malformed or too long, or a number in it would be too large.
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
        # isinstance would accept True as an int. repr gives the decimal as it was written, not its nearest double.
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
    if _bits(base) * abs(exponent) > 2 * _MAX_BITS:  # checked before the power is computed
        raise CalculationError("too large")
    return _bounded(Fraction(base ** int(exponent)))


def _bounded(value: Fraction) -> Fraction:
    if _bits(value) > _MAX_BITS:
        raise CalculationError("too large")
    return value


def _bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())
