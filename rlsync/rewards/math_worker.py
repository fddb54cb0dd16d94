"""The process in which math-verify runs; math_reward.py starts and ends it."""

from __future__ import annotations

import logging
from multiprocessing.connection import Connection

from math_verify import parse, verify  # type: ignore[import-untyped]

READY = "ready"
BAD_GOLD = "gold"


def serve(connection: Connection) -> None:
    """Answer each (gold, completion) with a bool, or BAD_GOLD, until the other end closes."""
    # It warns that without its own timeouts the caller must have one: math_reward.py does.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    connection.send(READY)
    while True:
        try:
            gold, completion = connection.recv()
        except EOFError:
            return
        connection.send(compare(gold, completion))


def compare(gold: str, completion: str) -> bool | str:
    """Whether the completion's answer equals the gold one; BAD_GOLD if that holds no mathematics."""
    parsed_gold = parse(as_math(gold), parsing_timeout=None)
    if not parsed_gold:
        return BAD_GOLD
    return bool(verify(parsed_gold, parse(completion, parsing_timeout=None), timeout_seconds=None))


def as_math(gold: str) -> str:
    """The gold answer in the delimiters without which math-verify reads numbers only."""
    # GSM8K's answers are solutions that end in "#### 72".
    gold = gold.rpartition("####")[2].strip()
    return gold if "$" in gold or "\\boxed" in gold else f"${gold}$"
