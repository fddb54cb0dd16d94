"""Replays one rollout in an engine and in the trainer, and reports where they part."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import groupby

import torch

from rlsync.samples import Rollout, RolloutRequest
from rlsync.trace.find import different_positions, first_difference, growth, value_at
from rlsync.trace.records import OUTSIDE_LAYERS, Op, OpKey, OpRecord
from rlsync.trace.report import TraceReport

EngineSide = Callable[[RolloutRequest, list[OpRecord] | None], tuple[Rollout, list[list[OpRecord]]]]
"""Answers a request, given the trainer's records, and returns the rollout and the records of each TP rank."""
TrainerSide = Callable[[Rollout, dict[OpKey, int] | None], list[OpRecord]]
"""Forwards a rollout, given the positions of the rows to keep, and returns the records."""


def trace_rollout(
    rollout: Rollout, position: int, *, sequence: int, tp: int, native: bool, engine: EngineSide, trainer: TrainerSide
) -> TraceReport:
    """Find the first op whose bits differ.

    The trainer forwards the rollout, and the engine samples its turn again, keeping of each op the row of the first
    token that differs from the trainer's. The trainer then makes the same rows, and the engine's second replay shows
    whether it repeats its own bits.

    Args:
        rollout: The sequence that differs.
        position: Position of its first token that differs.
        sequence: Index of the sequence, for the report.
        tp: Tensor-parallel size of the engine.
        native: The engine is stock vLLM, whose draws cannot be repeated, so the whole sequence is its prompt.
        engine: The engine's side.
        trainer: The trainer's side, at the same weights.
    """
    started = time.perf_counter()
    request = _whole_as_prompt(rollout) if native else replay_request(rollout, position)
    mine = trainer(rollout, None)
    replay, records = engine(request, mine)
    ranks = _with_head(replay, records)
    if not torch.equal(replay.tokens, rollout.tokens):
        mine = trainer(replay, None)
    place, value, repeats = first_difference(mine, ranks), None, True
    if place is not None:
        rows = {record.key: record.row_position for rank in ranks for record in rank if record.row is not None}
        mine = trainer(replay, rows)
        value = value_at(place, mine, ranks[place.ranks[0]])
        again, records = engine(request, None)
        repeats = _same(ranks, _with_head(again, records))
    return TraceReport(
        sequence=sequence,
        tp=tp,
        place=place,
        value=value,
        growth=growth(mine, ranks),
        engine_repeats=repeats,
        same_rollout=native or _gave(replay, rollout, len(request.prompt)),
        seconds=time.perf_counter() - started,
    )


def replay_request(rollout: Rollout, position: int) -> RolloutRequest:
    """Return a request that samples again the turn of the model in which the token at `position` lies."""
    begin = 0
    for own, run in groupby(rollout.sampled.tolist()):
        end = begin + len(list(run))
        if own and begin <= position < end:
            return RolloutRequest(
                prompt=rollout.tokens[:begin].tolist(), seed=rollout.seed, max_tokens=end - begin, stop_ids=[]
            )
        begin = end
    raise ValueError(f"position {position}: the model did not sample this token")


def head_record(op: Op, positions: torch.Tensor, values: torch.Tensor) -> OpRecord:
    """Return the record of the logits or the log-probs of sampled tokens.

    Args:
        op: Op.logits or Op.logprob.
        positions: [N] position of the row that predicts each token.
        values: [N] digest of each row of logits, or bits of each log-prob.
    """
    key = OpKey(OUTSIDE_LAYERS[op], op)
    return OpRecord(key=key, positions=positions.cpu(), digests=values.detach().cpu().long())


def rollout_head(rollout: Rollout) -> list[OpRecord]:
    """Return the records of the logits and the log-probs that an exact engine reported with a rollout."""
    if rollout.row_digests is None:
        return []
    at = rollout.sampled.nonzero()[:, 0]
    return [
        head_record(Op.logits, at - 1, rollout.row_digests[at]),
        head_record(Op.logprob, at - 1, rollout.logprobs[at].view(torch.int32)),
    ]


def _whole_as_prompt(rollout: Rollout) -> RolloutRequest:
    return RolloutRequest(prompt=rollout.tokens.tolist(), seed=rollout.seed, max_tokens=1, stop_ids=[])


def _with_head(rollout: Rollout, ranks: list[list[OpRecord]]) -> list[list[OpRecord]]:
    """Add the records of the logits and the log-probs, which all ranks share, to the records of each rank."""
    head = rollout_head(rollout)
    return [[*records, *head] for records in ranks]


def _same(one: list[list[OpRecord]], other: list[list[OpRecord]]) -> bool:
    """Whether two replays have the same digests for the tokens that both computed; a prefix may be cached by now."""
    for first, second in zip(one, other, strict=True):
        again = {record.key: record for record in second}
        if any(different_positions(record, again[record.key]) for record in first):
            return False
    return True


def _gave(replay: Rollout, rollout: Rollout, begin: int) -> bool:
    """Whether the replay sampled the rollout's tokens from `begin` on, with the same log-probs."""
    end = len(replay.tokens)
    same = torch.equal(replay.tokens[begin:], rollout.tokens[begin:end])
    return same and torch.equal(replay.logprobs[begin:], rollout.logprobs[begin:end])
