"""The search for the first difference: by op, token and rank, with values and ulp."""

import torch

from rlsync.kernels.ulp import ulp_distance
from rlsync.trace.find import Growth, Place, first_difference, growth, value_at
from rlsync.trace.records import Op, OpKey, Recorder
from rlsync.trace.report import TraceReport, headline, table_rows

TOKENS = 5


def _side(changed=None, split=False, rank=None, expected=None, rows=None):
    """The records of two ops over five tokens; `changed` edits the values of an op before they are recorded."""
    recorder = Recorder(expected, rows)
    recorder.positions = torch.arange(TOKENS)
    for layer in (0, 1):
        for op in (Op.q_proj, Op.o_proj):
            values = torch.arange(TOKENS * 8, dtype=torch.float32).view(TOKENS, 8) + 10 * layer + op
            if changed is not None:
                changed(layer, op, values)
            if op is Op.q_proj and rank is not None:
                recorder.add(layer, op, values.chunk(2, 1)[rank], shard=rank, shards=2)
            elif op is Op.q_proj and split:
                recorder.add_split(layer, op, values, 2)
            else:
                recorder.add(layer, op, values)
    return recorder.records()


def _one_ulp(layer, op, values):
    if (layer, op) == (1, Op.q_proj):
        values.view(torch.int32)[2:, 6] += 1
    if (layer, op) == (1, Op.o_proj):
        values[1:] *= 2


def _both_sides():
    """The records of the trainer and of two ranks, of which the second holds the column that differs."""
    trainer = _side(split=True)
    ranks = [_side(_one_ulp, rank=rank, expected=trainer) for rank in (0, 1)]
    rows = {record.key: record.row_position for records in ranks for record in records if record.row is not None}
    return _side(split=True, rows=rows), ranks


def test_equal_sides_have_no_first_difference():
    trainer = _side(split=True)
    assert first_difference(trainer, [_side(rank=0), _side(rank=1)]) is None
    assert not any(each.tokens_different for each in growth(trainer, [_side(rank=0), _side(rank=1)]))


def test_the_first_op_and_the_rank_that_holds_the_column_are_named():
    trainer, ranks = _both_sides()
    place = first_difference(trainer, ranks)
    assert place == Place(layer=1, op=Op.q_proj, position=2, ranks=[1])
    assert place.name == "layers.1.q_proj"
    value = value_at(place, trainer, ranks[1])
    assert (value.column, value.ulp, value.differing, value.columns) == (2, 1, 1, 4)
    found = {each.name: each for each in growth(trainer, ranks)}
    assert found["layers.1.q_proj"].tokens_different == 3
    assert found["layers.1.q_proj"].max_ulp == 1
    assert found["layers.1.o_proj"].tokens_different == 4
    assert found["layers.0.o_proj"] == Growth(layer=0, op=Op.o_proj, tokens_different=0, tokens=TOKENS)


def test_only_the_tokens_that_an_engine_computed_are_compared():
    """Tokens of a cached prefix have no records."""
    trainer, rank = _side(), _side(_one_ulp)
    for record in rank:
        record.positions, record.digests = record.positions[3:], record.digests[3:]
    assert first_difference(trainer, [rank]).position == 3


def test_several_forward_passes_are_one_record():
    recorder = Recorder(rows={OpKey(0, Op.act): 4})
    for positions in (torch.arange(3), torch.tensor([3]), torch.tensor([4])):
        recorder.positions = positions
        recorder.add(0, Op.act, positions[:, None].float() + torch.arange(4))
    (record,) = recorder.records()
    assert record.positions.tolist() == [0, 1, 2, 3, 4]
    assert len(set(record.digests.tolist())) == 5
    assert (record.row.tolist(), record.row_position) == ([4, 5, 6, 7], 4)


def test_ulp_distances():
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.tensor([0.0, 1.0, -1.0], dtype=dtype)
        up = torch.nextafter(x, torch.full_like(x, 9.0))
        assert ulp_distance(x, up).tolist() == [1, 1, 1]
        assert ulp_distance(x, x).tolist() == [0, 0, 0]
        assert ulp_distance(torch.zeros(1, dtype=dtype), -torch.zeros(1, dtype=dtype)).tolist() == [1]


def test_the_report_says_where_and_why():
    trainer, ranks = _both_sides()
    place = first_difference(trainer, ranks)
    report = TraceReport(
        sequence=3, tp=2, place=place, value=value_at(place, trainer, ranks[1]), growth=growth(trainer, ranks)
    )
    text = headline(report)
    assert "layers.1.q_proj, TP rank 1 of 2, token at position 2" in text
    assert "1 ulp apart (1 of 4 values differ)" in text
    assert "the weight or the bias of the projection" in text
    assert [row[0] for row in table_rows(report)] == ["layers.1.q_proj", "layers.1.o_proj"]
    nothing = TraceReport(sequence=3, tp=1, place=None, growth=[], engine_repeats=False)
    assert "agrees with the trainer at every op" in headline(nothing)
    assert "not deterministic" in headline(nothing)
