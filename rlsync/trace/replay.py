"""Replays one rollout in an engine and in the trainer, and reports where they part."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import groupby

import torch

from rlsync.samples import Rollout, RolloutRequest
from rlsync.trace.find import first_difference, growth, value_at
from rlsync.trace.records import OUTSIDE_LAYERS, Op, OpRecord
from rlsync.trace.report import TraceReport

EngineSide = Callable[[RolloutRequest, int | None], tuple[Rollout, list[list[OpRecord]]]]
"""Answers a request, and returns the rollout and the records of each TP rank; the number is the position to watch."""
TrainerSide = Callable[[Rollout, int | None], list[OpRecord]]
"""Forwards a rollout, and returns the records; the number is the position to watch."""


def trace_rollout(
    rollout: Rollout, position: int, *, sequence: int, tp: int, native: bool, engine: EngineSide, trainer: TrainerSide
) -> TraceReport:
    """Find the first op whose bits differ, with two replays on each side: one for digests, and one for the values.

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
    replay, ranks = engine(request, None)
    ranks = [[*records, *rollout_head(replay)] for records in ranks]
    mine = trainer(replay, None)
    place = first_difference(mine, ranks)
    value, repeats = None, True
    if place is not None:
        again, watched = engine(request, place.position)
        repeats = _same(ranks, [[*records, *rollout_head(again)] for records in watched])
        own = trainer(replay, place.position)
        ranks = [[*records, *rollout_head(replay)] for records in watched]
        mine = own
        value = value_at(place, own, watched[place.ranks[0]])
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
    return OpRecord(layer=OUTSIDE_LAYERS[op], op=op, positions=positions.cpu(), digests=values.detach().cpu().long())


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


def _same(one: list[list[OpRecord]], other: list[list[OpRecord]]) -> bool:
    pairs = [pair for ranks in zip(one, other, strict=True) for pair in zip(*ranks, strict=False)]
    return all(torch.equal(a.positions, b.positions) and torch.equal(a.digests, b.digests) for a, b in pairs)


def _gave(replay: Rollout, rollout: Rollout, begin: int) -> bool:
    """Whether the replay sampled the rollout's tokens from `begin` on, with the same log-probs."""
    end = len(replay.tokens)
    same = torch.equal(replay.tokens[begin:], rollout.tokens[begin:end])
    return same and torch.equal(replay.logprobs[begin:], rollout.logprobs[begin:end])
