"""The request that samples a turn again, and the order of the two replays."""

import pytest
import torch

from rlsync.samples import FinishReason, Rollout
from rlsync.trace.records import Op, OpKey, OpRecord
from rlsync.trace.replay import replay_request, trace_rollout


def _conversation():
    """A prompt of three tokens, a turn of two, a message of two, and a turn of three."""
    sampled = torch.tensor([0, 0, 0, 1, 1, 0, 0, 1, 1, 1]).bool()
    return Rollout(
        tokens=torch.arange(10) + 50,
        sampled=sampled,
        logprobs=torch.where(sampled, -0.5, 0.0),
        weight_version=torch.where(sampled, 0, -1).to(torch.int32),
        seed=7,
        finish_reason=FinishReason.stop,
        row_digests=torch.where(sampled, torch.arange(10), 0),
    )


@pytest.mark.parametrize(("position", "prompt", "tokens"), [(3, 3, 2), (4, 3, 2), (7, 7, 3), (9, 7, 3)])
def test_the_turn_of_a_token_is_sampled_again(position, prompt, tokens):
    request = replay_request(_conversation(), position)
    assert request.prompt == list(range(50, 50 + prompt))
    assert (request.max_tokens, request.seed) == (tokens, 7)


def test_a_token_that_was_not_sampled_cannot_be():
    with pytest.raises(ValueError, match="position 5: the model did not sample"):
        replay_request(_conversation(), 5)


KEY = OpKey(0, Op.attention)


def _record(digest, row=None):
    """A record of two tokens, of which the second has this digest and perhaps a row."""
    positions, digests = torch.tensor([0, 1]), torch.tensor([4, digest])
    if row is None:
        return OpRecord(key=KEY, positions=positions, digests=digests)
    return OpRecord(key=KEY, positions=positions, digests=digests, row=torch.tensor(row), row_position=1)


def test_the_trainer_makes_the_rows_at_which_the_engine_differs():
    rollout, calls = _conversation(), []

    def engine(request, expected):
        calls.append("engine" if expected is None else "engine with expected records")
        return rollout, [[_record(8, None if expected is None else [1.0, 2.0])]]

    def trainer(replay, rows):
        assert torch.equal(replay.tokens, rollout.tokens)
        calls.append(rows)
        return [_record(9, None if rows is None else [1.0, 2.5])]

    report = trace_rollout(rollout, 7, sequence=0, tp=1, native=False, engine=engine, trainer=trainer)
    assert calls == [None, "engine with expected records", {KEY: 1}, "engine"]
    assert (report.place.name, report.place.position) == ("layers.0.attention", 1)
    assert (report.value.trainer, report.value.engine) == (2.5, 2.0)
    assert report.engine_repeats
    assert report.same_rollout


def test_an_engine_that_does_not_repeat_itself_is_found_out():
    digests = iter([8, 7])
    report = trace_rollout(
        _conversation(), 7, sequence=0, tp=1, native=False,
        engine=lambda request, expected: (_conversation(), [[_record(next(digests))]]),
        trainer=lambda replay, rows: [_record(9)],
    )  # fmt: skip
    assert not report.engine_repeats


def test_a_prefix_that_is_cached_by_the_second_replay_is_no_difference():
    records = iter([_record(8), OpRecord(key=KEY, positions=torch.tensor([1]), digests=torch.tensor([8]))])
    report = trace_rollout(
        _conversation(), 7, sequence=0, tp=1, native=False,
        engine=lambda request, expected: (_conversation(), [[next(records)]]),
        trainer=lambda replay, rows: [_record(9)],
    )  # fmt: skip
    assert report.engine_repeats
