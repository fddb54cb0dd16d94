"""Convert mathematical answers, as people write them, to forms that math-verify parses correctly."""

from __future__ import annotations

import re
from decimal import Decimal

_BOX = r"\\(?:boxed|fbox)\s*\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\}"
_BOXES = re.compile(rf"{_BOX}(?:\s*(?:,|;|and|or|\$|\\text\{{\s*(?:and|or)\s*\}})+\s*{_BOX})*")
_BOX_CONTENT = re.compile(r"^\\(?:boxed|fbox)\s*\{(.*)\}$", re.DOTALL)
_SCIENTIFIC = re.compile(r"(?<![\w.^])\d+(?:\.\d+)?[eE][+-]?\d{1,3}(?!\w)")
_MIXED = re.compile(r"(?<![\d./])(\d+)[ ](\d+)/(\d+)(?![\d./])")
_ROOT = re.compile(r"\\sqrt\(([^()]*)\)")
_BARE_PERCENT = re.compile(r"(?<!\\)%")
_WORDS = re.compile(r"[A-Za-z][A-Za-z '\-]*")
_TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|texttt)\s*\{([^{}]*)\}")
_INTRODUCED = re.compile(r"(?:answer|option|choice)\s*(?:is|:|=)+\s*(.+)", re.IGNORECASE)
_SHORT_WORDS = {"yes", "no", "odd"}
_CHOICES = "ABCDEFGHIJ"
_SHORTEST_WORD = 4
"""Smallest number of letters of a word; fewer letters may be a product of variables."""

NO_GOLD = "no mathematics"
"""Result for a gold answer that is neither a word nor mathematics."""


def final_boxes(completion: str) -> str | None:
    """Return the last box, or the last boxes if they are joined by a comma, "and" or "or"; None if there is none."""
    found = _BOXES.findall(completion)
    return found[-1] if found else None


def gold_as_latex(gold: str) -> str:
    """Return the gold answer in LaTeX delimiters, without which math-verify parses only numbers."""
    gold = gold.rpartition("####")[2].strip()  # GSM8K's answers are solutions that end in "#### 72"
    gold = _BARE_PERCENT.sub(r"\\%", _plain_decimals(gold))
    return gold if "\\boxed" in gold or gold.count("$") > 1 else f"${gold.replace('$', '')}$"


def readable(completion: str) -> str:
    """Return a completion in which forms that math-verify misreads are rewritten."""
    completion = _MIXED.sub(r"$\1\\frac{\2}{\3}$", completion)
    return _plain_decimals(_ROOT.sub(r"\\sqrt{\1}", completion))


def _plain_decimals(text: str) -> str:
    """Write numbers such as 1e-05, which come from columns of floats, without an exponent."""
    return _SCIENTIFIC.sub(lambda found: format(Decimal(found[0]), "f"), text)


def plain_words(gold: str) -> str | None:
    """Return the gold answer if it is a word or a choice such as C, (C) or Yes; None if it is mathematics."""
    bare = _bare(gold)
    if not _WORDS.fullmatch(bare):
        return None
    return bare if len(bare) >= _SHORTEST_WORD or bare.lower() in _SHORT_WORDS or bare in _CHOICES else None


def says(completion: str, words: str) -> bool:
    """Whether a completion's final answer is these words.

    The final answer is the last box, or else the text after the last "answer is" (or a similar phrase), or else the
    whole completion.
    """
    boxes = final_boxes(completion)
    if boxes is not None:
        content = _BOX_CONTENT.match(boxes)
        answers = [content[1] if content else ""]
    else:
        introduced = _INTRODUCED.findall(completion)
        answers = [introduced[-1]] if introduced else [completion]
    answer = _bare(answers[0])
    if len(words) == 1:  # "C) 12" and "C. Paris" also choose C
        return answer == words or re.match(rf"\(?{words}[).:]\s", answers[0].strip() + " ") is not None
    return answer.lower() == words.lower()


def _bare(text: str) -> str:
    return _TEXT_COMMAND.sub(r"\1", text).replace("**", "").replace("$", "").strip().strip(".()[]\"'` ").strip()
