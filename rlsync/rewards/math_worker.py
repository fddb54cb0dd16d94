"""The job of a worker process for reward=math_verify."""

from __future__ import annotations

import logging
from collections.abc import Callable

from math_verify import parse, verify
from sympy import Expr, N

from rlsync.rewards.math_answers import NO_GOLD, final_boxes, gold_as_latex, plain_words, readable, says

_TINY = 1e-3
"""Smallest number for which math-verify's comparison to six decimals is precise enough."""


def make(_: None) -> Callable[[tuple[str, str, bool]], bool | str]:
    """Make the job of a worker: f((gold, completion, boxed)) -> result of compare."""
    # math-verify warns that without its own timeouts the caller must have one; the worker pool has.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    return lambda request: compare(*request)


def compare(gold: str, completion: str, boxed: bool = False) -> bool | str:
    r"""Return whether the completion's answer equals the gold answer, or NO_GOLD if that is not mathematics.

    Args:
        gold: The gold answer.
        completion: The model's text.
        boxed: Only the contents of \boxed{} are an answer.
    """
    boxes = final_boxes(completion)
    if boxed and boxes is None:
        return False
    words = plain_words(gold)
    if words is not None:
        return says(completion, words)
    expected = parse(gold_as_latex(gold), parsing_timeout=None)
    if not expected:
        return NO_GOLD
    answer = parse(readable(boxes or completion), parsing_timeout=None)
    return bool(verify(expected, answer, timeout_seconds=None)) and not _tiny_and_different(expected[0], answer[0])


def _tiny_and_different(expected: object, answer: object) -> bool:
    """Whether both are numbers that differ, but are so small that they are equal to six decimals."""
    if not all(isinstance(each, Expr) and each.is_number for each in (expected, answer)):
        return False
    ratio = N(answer / expected) if expected != 0 else None  # type: ignore[operator]
    small = abs(N(expected)) < _TINY
    return bool(small and (ratio is None or not abs(ratio - 1) < _TINY) and answer != expected)
