"""Parsers that find the answer in a data set's answer column."""

from __future__ import annotations

import re
from collections.abc import Callable

from rlsync.config.data import AnswerParser

_BOX = re.compile(r"\\(?:boxed|fbox)\s*")


def whole(text: str) -> str:
    """Return the whole text."""
    return text


def after_hashes(text: str) -> str:
    """Return the answer of a GSM8K solution: `... #### 1,234` gives 1234.

    Raises:
        ValueError: There is no ####, or no text follows it.
    """
    _, marker, answer = text.rpartition("####")
    answer = answer.strip().replace(",", "")
    if not marker or not answer:
        raise ValueError("no answer follows ####")
    return answer


def boxed(text: str) -> str:
    r"""Return the answer of a MATH solution: the contents of the last \boxed{...}, with inner braces.

    `\boxed 5`, without braces, gives 5.

    Raises:
        ValueError: There is no box, it is empty, or its braces do not close.
    """
    boxes = list(_BOX.finditer(text))
    if not boxes:
        raise ValueError("there is no \\boxed{}")
    rest = text[boxes[-1].end() :]
    answer = _in_braces(rest) if rest.startswith("{") else rest.partition("$")[0].strip()
    if not answer:
        raise ValueError("the last \\boxed{} is empty, or its braces do not close")
    return answer


def _in_braces(text: str) -> str:
    """Return the contents of the braces that open at the start of the text; empty if they do not close."""
    depth = 0
    for index, character in enumerate(text):
        escaped = index > 0 and text[index - 1] == "\\"
        depth += 0 if escaped else (character == "{") - (character == "}")
        if depth == 0:
            return text[1:index].strip()
    return ""


PARSERS: dict[AnswerParser, Callable[[str], str]] = {
    AnswerParser.none: whole,
    AnswerParser.gsm8k: after_hashes,
    AnswerParser.boxed: boxed,
}
