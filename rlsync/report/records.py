"""What a page holds of a rollout: a short form of every listed one, and a whole form of some."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rlsync.report.metric_table import Value
from rlsync.report.rollout_line import RolloutLine
from rlsync.report.tokens import Pieces

_LONGEST_TEXT, _MOST_TOKENS = 200_000, 20_000
"""Characters of a text and tokens of a response that the whole form of a rollout may have."""
_SHORT = 120
"""Characters of an answer or of a problem's id in the short form."""
_NOT_SAMPLED = "-" * 8


@dataclass(slots=True)
class Rows:
    """Short forms of rollouts, as columns. Texts that were cut off are marked in `cut`."""

    step: list[int] = field(default_factory=list)
    sample: list[int] = field(default_factory=list)
    reward: list[Value] = field(default_factory=list)
    length: list[int] = field(default_factory=list)
    advantage: list[Value] = field(default_factory=list)
    finish: list[str] = field(default_factory=list)
    problem: list[str] = field(default_factory=list)
    prompt: list[str] = field(default_factory=list)
    response: list[str] = field(default_factory=list)
    answer: list[str] = field(default_factory=list)
    cut: list[int] = field(default_factory=list)

    def add(self, line: RolloutLine, limit: int) -> None:
        """Add a rollout with at most `limit` characters of its texts."""
        self.step.append(line.step)
        self.sample.append(line.sample)
        self.reward.append(line.reward)
        self.length.append(line.length)
        self.advantage.append(line.advantage)
        self.finish.append(line.finish[:_SHORT])
        self.problem.append(line.problem[:_SHORT])
        self.prompt.append(line.prompt[:limit])
        self.response.append(line.response[:limit])
        self.answer.append(line.answer[:_SHORT])
        self.cut.append(int(len(line.prompt) > limit or len(line.response) > limit or len(line.answer) > _SHORT))


@dataclass(slots=True, kw_only=True)
class Record:
    """The whole form of a rollout."""

    row: int
    """Number of the rollout among the listed ones."""
    prompt: str
    read: str
    """The prompt as the model read it, with a chat template's text; empty if it is the same."""
    response: str
    turns: list[str]
    answer: str
    error: str
    parts: dict[str, Value]
    seed: str
    """In decimal digits, which a page's numbers do not all have."""
    version: int
    tokens: list[int]
    """Each token after the prompt, as a number of `Records.pieces`."""
    bits: str
    """8 hex digits of each token's log-prob; dashes if it was not sampled."""
    trainer: dict[int, str] | None
    """The trainer's bits where they differ, by the token's position; None if they are not saved."""
    advantages: list[Value]
    cut: bool
    """Whether a text or the tokens were too long even for this form."""


@dataclass(slots=True)
class Records:
    """Whole forms of rollouts, and the texts of their tokens."""

    pieces: list[tuple[int, str | None]] = field(default_factory=list)
    """Id and text of tokens; None if there is no tokenizer."""
    records: list[Record] = field(default_factory=list)

    def add(
        self, row: int, line: RolloutLine, pieces: Pieces | None, numbers: dict[tuple[int, str | None], int]
    ) -> None:
        """Add a rollout.

        Args:
            row: Its number among the listed ones.
            line: The rollout.
            pieces: Texts of tokens; None without a tokenizer.
            numbers: The number of each pair of `pieces`, which this call extends.
        """
        ids = line.tokens[:_MOST_TOKENS]
        texts: list[str | None] = [None] * len(ids) if pieces is None else list(_texts(pieces, ids))
        for pair in zip(ids, texts, strict=True):
            if pair not in numbers:
                numbers[pair] = len(self.pieces)
                self.pieces.append(pair)
        record = Record(
            row=row,
            prompt=line.prompt[:_LONGEST_TEXT],
            read=_read(line, pieces)[:_LONGEST_TEXT],
            response=line.response[:_LONGEST_TEXT],
            turns=_within(line.turns) if len(line.turns) > 1 else [],
            answer=line.answer[:_LONGEST_TEXT],
            error=line.error[:_LONGEST_TEXT],
            parts=line.parts,
            seed=str(line.seed),
            version=line.version,
            tokens=[numbers[pair] for pair in zip(ids, texts, strict=True)],
            bits="".join(bit or _NOT_SAMPLED for bit in line.bits[:_MOST_TOKENS]),
            trainer=_differences(line),
            advantages=line.advantages[:_MOST_TOKENS],
            cut=len(ids) < len(line.tokens) or max(map(len, (line.prompt, line.response, line.answer))) > _LONGEST_TEXT,
        )
        self.records.append(record)


def _texts(pieces: Pieces, ids: list[int]) -> Sequence[str | None]:
    try:
        return pieces.texts(ids)
    except Exception:  # noqa: BLE001  # an id that the tokenizer does not have raises many types
        return [None] * len(ids)


def _read(line: RolloutLine, pieces: Pieces | None) -> str:
    if pieces is None or not line.prompt_tokens:
        return ""
    try:
        text = pieces.text(line.prompt_tokens)
    except Exception:  # noqa: BLE001  # as in _texts
        return ""
    return "" if text == line.prompt else text


def _within(turns: list[str]) -> list[str]:
    left, kept = _LONGEST_TEXT, []
    for turn in turns:
        kept.append(turn[:left])
        left -= len(turn)
        if left <= 0:
            break
    return kept


def _differences(line: RolloutLine) -> dict[int, str] | None:
    if not line.trainer_bits:
        return None
    pairs = zip(line.bits[:_MOST_TOKENS], line.trainer_bits, strict=False)
    return {place: trainer for place, (own, trainer) in enumerate(pairs) if trainer is not None and own != trainer}
