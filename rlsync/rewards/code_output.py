"""Compare a program's output with the expected one, as programming contests do."""

from __future__ import annotations

from decimal import Decimal

from rlsync.sandbox.examine import TOLERANCE


def same_output(printed: str, expected: str) -> bool:
    """Whether two outputs are equal, ignoring blanks at the ends of lines, and blanks and empty lines at both ends.

    Lines of numbers are compared number by number, ignoring the blanks between them. An expected number with a decimal
    point or an exponent may differ by 1e-6, absolute or relative; an integer must match exactly (3.0 matches 3).
    """
    got, want = _lines(printed), _lines(expected)
    return len(got) == len(want) and all(a == b or _same_numbers(a, b) for a, b in zip(got, want, strict=True))


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]


def _same_numbers(got: str, want: str) -> bool:
    mine, theirs = got.split(), want.split()
    return len(mine) == len(theirs) and all(_same_number(a, b) for a, b in zip(mine, theirs, strict=True))


def _same_number(got: str, want: str) -> bool:
    try:
        mine, theirs = Decimal(got), Decimal(want)
        if not (mine.is_finite() and theirs.is_finite()):
            return False
        if want.lstrip("+-").isdigit():
            return mine == theirs
        return abs(mine - theirs) <= Decimal(str(TOLERANCE)) * max(Decimal(1), abs(theirs))
    except ArithmeticError:  # not a number, or too large for Decimal
        return False
