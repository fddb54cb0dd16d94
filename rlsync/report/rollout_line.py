"""One line of rollouts.jsonl, with what is missing or of another type left out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, TypeGuard

from rlsync.report.lines import parse
from rlsync.report.metric_table import Value, number

_PARTS = ("reward_parts", "parts")
"""Keys under which a line may have the scores of the functions of a weighted sum."""
_TRAINER_BITS = "trainer_logprob_bits"
"""Key under which a line may have the trainer's log-probs, in the form of `logprob_bits`."""

_TOKENS, _BITS = b', "prompt_tokens": [', b'"logprob_bits": ['
"""Beginnings of values in a line. In a text they cannot occur, because its quotes are escaped."""
_HEX = re.compile(r"(?:[0-9a-f]{8})*")


@dataclass(slots=True, kw_only=True)
class RolloutLine:
    """What a line says about a rollout."""

    step: int
    sample: int
    problem: str
    prompt: str
    response: str
    turns: list[str]
    answer: str
    reward: Value
    error: str
    parts: dict[str, Value]
    advantage: Value
    """The advantage that all tokens share or, with a critic, the mean of those of the sampled tokens."""
    advantages: list[Value]
    """The advantage of each sampled token, with a critic; else empty."""
    finish: str
    seed: int
    version: int
    prompt_tokens: list[int]
    tokens: list[int]
    """Token ids after the prompt."""
    bits: list[str | None]
    """Bits of each token's log-prob in hex; None if it was not sampled."""
    trainer_bits: list[str | None]
    """The same of the trainer; empty if the run does not save them."""

    length: int
    """Number of tokens that the model sampled."""


def short_line(data: bytes) -> RolloutLine | None:
    """Return a line without its token ids and log-probs, which are not parsed: this takes a tenth of the time.

    None if the line cannot be read.
    """
    cut = data.find(_TOKENS)
    begin = data.find(_BITS, cut)
    if cut < 0 or begin < 0 or not data.rstrip().endswith(b"}"):
        return rollout_line(data)
    length = data.count(b'"', begin + len(_BITS), data.find(b"]", begin)) // 2
    return _line(parse(data[:cut] + b"}"), length)


def rollout_line(data: bytes) -> RolloutLine | None:
    """Return a line; None if it cannot be read."""
    row = parse(data)
    if row is None:
        return None
    bits = _bits(row.get("logprob_bits"))
    return _line(row, len(bits) - bits.count(None) if bits else len(_list(row.get("response_tokens"))))


def _line(row: dict[str, Any] | None, length: int) -> RolloutLine | None:
    """Return the line of an object; None if it names no step."""
    if row is None or not _is_int(row.get("step")):
        return None
    advantage = row.get("advantage")
    each = [number(value) for value in advantage] if isinstance(advantage, list) else []
    known = [value for value in each if value is not None]
    parts: dict[str, Any] = next((row[key] for key in _PARTS if isinstance(row.get(key), dict)), {})
    return RolloutLine(
        step=row["step"],
        sample=_whole(row.get("sample")),
        problem=_text(row.get("problem")),
        prompt=_text(row.get("prompt")),
        response=_text(row.get("response")),
        turns=[_text(turn) for turn in _list(row.get("turns"))],
        answer=_text(row.get("answer")),
        reward=number(row.get("reward")),
        error=_text(row.get("reward_error")),
        parts={str(name): number(value) for name, value in parts.items()},
        advantage=number(sum(known) / len(known)) if known else number(advantage),
        advantages=each,
        finish=_text(row.get("finish_reason")),
        seed=_whole(row.get("seed")),
        version=_whole(row.get("weight_version")),
        prompt_tokens=_ids(row.get("prompt_tokens")),
        tokens=_ids(row.get("response_tokens")),
        bits=_bits(row.get("logprob_bits")),
        trainer_bits=_bits(row.get(_TRAINER_BITS)),
        length=length,
    )


def _bits(value: object) -> list[str | None]:
    """Return the bits of a list; what is neither 8 hex digits nor None becomes None."""
    bits = _list(value)
    if set(map(type, bits)) <= {str, type(None)} and _HEX.fullmatch("".join(filter(None, bits))):
        return bits
    return [bit if isinstance(bit, str) and _HEX.fullmatch(bit) else None for bit in bits]


def _ids(value: object) -> list[int]:
    ids = _list(value)
    return ids if set(map(type, ids)) <= {int} else [_whole(token) for token in ids]


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _whole(value: object) -> int:
    return value if _is_int(value) else 0


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: object) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)
