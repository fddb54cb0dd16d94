"""The rows of a prefix tree by hand and by definition, and plans that keep samples with a common prefix together."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlsync.samples import FinishReason, Rollout, TrainSample
from rlsync.trainer import prefix_tree
from rlsync.trainer.packing import pack_samples, plan_packs, unpack_items
from rlsync.trainer.prefix_tree import common_prefix, lay_as_tree, lay_end_to_end, trie_order

FOREST = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=10)
"""Sequences over so few tokens that many share a prefix."""


def _tensors(sequences):
    return [torch.tensor(sequence) for sequence in sequences]


def _sample(tokens, prompt=1):
    n = len(tokens)
    sampled = torch.arange(n) >= prompt
    rollout = Rollout(
        tokens=torch.tensor(tokens), sampled=sampled, logprobs=-1.0 * torch.arange(n) * sampled, seed=n,
        weight_version=torch.where(sampled, 0, -1).int(), finish_reason=FinishReason.stop,
    )  # fmt: skip
    return TrainSample(rollout=rollout, advantage=torch.ones(rollout.tokens.numel()))


def _paths(layout):
    return [row[:n].tolist() for row, n in zip(layout.paths.table, layout.paths.lengths.tolist(), strict=True)]


def test_a_tree_by_hand():
    """A prompt 7 8 with answers 1 2, 1 3 and 4; a sequence that is the start of another; another prompt."""
    layout = lay_as_tree(_tensors([[7, 8, 1, 3], [7, 8, 4], [7, 8, 1, 2], [5, 6], [5, 6, 9]]))
    assert layout.tokens.tolist() == [5, 6, 9, 7, 8, 1, 2, 3, 4]
    assert layout.positions.tolist() == [0, 1, 2, 0, 1, 2, 3, 3, 2]
    assert layout.starts.tolist() == [0, 3, 5, 6, 7, 8, 9]
    assert _paths(layout) == [[0, 1, 2], [3, 4], [3, 4, 5], [3, 4, 5, 6], [3, 4, 5, 7], [3, 4, 8]]
    assert [rows.tolist() for rows in layout.rows] == [[3, 4, 5, 7], [3, 4, 8], [3, 4, 5, 6], [0, 1], [0, 1, 2]]


def test_what_shares_nothing_lies_end_to_end():
    layout = lay_as_tree(_tensors([[2, 1], [1, 2], [3]]))
    assert layout.paths is None
    assert layout.tokens.tolist() == [2, 1, 1, 2, 3]
    assert layout.starts.tolist() == lay_end_to_end(_tensors([[2, 1], [1, 2], [3]])).starts.tolist() == [0, 2, 4, 5]


def test_equal_sequences_have_the_same_rows():
    layout = lay_as_tree(_tensors([[1, 2, 3]] * 3))
    assert layout.tokens.tolist() == [1, 2, 3]
    assert layout.starts.tolist() == [0, 3]
    assert all(rows.tolist() == [0, 1, 2] for rows in layout.rows)


@settings(deadline=None, max_examples=200)
@given(FOREST)
def test_a_tree_has_each_prefix_once(sequences):
    layout = lay_as_tree(_tensors(sequences))
    prefixes = {tuple(s[: t + 1]) for s in sequences for t in range(len(s))}
    if layout.paths is None:
        assert len(prefixes) == sum(map(len, sequences))
        return
    assert len(layout.tokens) == len(prefixes) < sum(map(len, sequences))
    for sequence, rows in zip(sequences, layout.rows, strict=True):
        assert layout.tokens[rows].tolist() == sequence
        assert layout.positions[rows].tolist() == list(range(len(sequence)))
    before = {rows[t + 1]: rows[t] for rows in (r.tolist() for r in layout.rows) for t in range(len(rows) - 1)}
    branches = [list(before.values()).count(row) > 1 for row in range(len(prefixes))]
    for path, (begin, end) in zip(_paths(layout), itertools.pairwise(layout.starts.tolist()), strict=True):
        assert path[begin - end :] == list(range(begin, end))  # the segment's own rows are the last keys
        assert all(before[b] == a for a, b in itertools.pairwise(path))
        assert path[0] not in before
        assert not any(branches[row] for row in range(begin, end - 1))
        # Segments are as long as possible.
        assert begin not in before or branches[before[begin]] or before[begin] != begin - 1


@settings(deadline=None, max_examples=50)
@given(FOREST)
def test_neighbours_share_most(sequences):
    tensors = _tensors(sequences)
    order = trie_order(tensors)
    assert sorted(order) == list(range(len(sequences)))
    for at, index in enumerate(order[1:], 1):
        best = max(common_prefix(tensors[other], tensors[index]) for other in order[:at])
        assert common_prefix(tensors[order[at - 1]], tensors[index]) == best


def test_chunks_of_paths_stay_in_their_limit(monkeypatch):
    monkeypatch.setattr(prefix_tree, "_CHUNK_KEYS", 6)
    layout = lay_as_tree(_tensors([[7, 8, 1], [7, 8, 2], [7, 8, 3], [7, 8, *range(10, 20)], [9]]))
    chunks = [(c.segments.start, c.segments.stop, c.rows.start, c.rows.stop, c.keys) for c in layout.paths.chunks]
    assert layout.paths.lengths.tolist() == [2, 3, 3, 3, 12, 1]
    assert chunks == [(0, 2, 0, 3, 5), (2, 4, 3, 5, 6), (4, 5, 5, 15, 12), (5, 6, 15, 16, 1)]


def test_items_of_a_tree():
    """Three answers to the prompt 7 8. The last two begin alike, so one row predicts the second token of both."""
    samples = [_sample([7, 8, 4], 2), _sample([7, 8, 1, 2], 2), _sample([7, 8, 1, 3], 2)]
    pack = pack_samples(samples, [5, 6, 9], share_prefixes=True)
    assert pack.tokens.tolist() == [7, 8, 1, 2, 3, 4]
    assert (pack.rows_saved, pack.longest) == (5, 2)
    assert pack.rows.tolist() == [1, 1, 2, 1, 2]
    assert pack.targets.tolist() == [4, 1, 2, 1, 3]
    assert pack.sequences.tolist() == [0, 1, 1, 2, 2]
    assert pack.seeds.tolist() == [3, 4, 4, 4, 4]
    assert {i: v.tolist() for i, v in unpack_items(pack, pack.rollout_logprobs).items()} == {
        i: s.rollout.logprobs.tolist() for i, s in zip((5, 6, 9), samples, strict=True)
    }


GROUPS = st.lists(
    st.tuples(st.integers(1, 30), st.lists(st.integers(1, 20), min_size=1, max_size=6)), min_size=2, max_size=8
)
"""For each prompt its number of tokens, and those of its answers."""


def _grouped(groups):
    return [
        _sample([100 + g] * prompt + [1000 * g + 100 * i + 1000, *range(length - 1)], prompt)
        for g, (prompt, lengths) in enumerate(groups)
        for i, length in enumerate(lengths)
    ]


@settings(deadline=None, max_examples=100)
@given(groups=GROUPS, ranks=st.integers(1, 3), minibatches=st.integers(1, 2), budget=st.integers(8, 150))
def test_plans_of_trees(groups, ranks, minibatches, budget):
    samples = _grouped(groups)
    arguments = {"ranks": ranks, "minibatches": minibatches, "micro_batch_tokens": budget}
    plan = plan_packs(samples, **arguments, share_prefixes=True)
    ids, rows = [], 0
    for minibatch in plan:
        assert len({len(packs) for packs in minibatch}) == 1
        for pack in (pack for packs in minibatch for pack in packs):
            real = [i for i in pack.sequence_ids.tolist() if i >= 0]
            assert pack.tokens.numel() <= budget or len(pack.sequence_ids) == 1
            assert pack.mask.sum() == sum(samples[i].rollout.num_sampled for i in real)
            ids, rows = ids + real, rows + pack.tokens.numel() * bool(real)
    assert sorted(ids) == list(range(len(samples)))
    assert rows <= sum(sample.rollout.tokens.numel() for sample in samples)
    again = plan_packs(samples, **arguments, share_prefixes=True)
    flat = [[pack for minibatch in p for packs in minibatch for pack in packs] for p in (plan, again)]
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(*flat, strict=True))


def test_a_group_is_one_pack_and_packs_are_even():
    """Four groups of 4 answers of 5 tokens to a prompt of 20: 40 rows each, and 400 tokens in all."""
    samples = _grouped([(20, [5] * 4)] * 4)
    (ranks,) = plan_packs(samples, ranks=2, minibatches=1, micro_batch_tokens=80, share_prefixes=True)
    assert [[p.sequence_ids.tolist() for p in packs] for packs in ranks] == [[list(range(8))], [list(range(8, 16))]]
    assert [p.tokens.numel() for packs in ranks for p in packs] == [80, 80]
    (apart,) = plan_packs(samples, ranks=2, minibatches=1, micro_batch_tokens=80)
    assert sum(p.tokens.numel() for packs in apart for p in packs) == 400  # the control
    (small,) = plan_packs(samples, ranks=2, minibatches=1, micro_batch_tokens=40, share_prefixes=True)
    assert [[p.sequence_ids.tolist() for p in packs] for packs in small] == [
        [[0, 1, 2, 3], [8, 9, 10, 11]], [[4, 5, 6, 7], [12, 13, 14, 15]]
    ]  # fmt: skip


@pytest.mark.parametrize(("prompt", "paths"), [(1, False), (8, True)])
def test_little_to_share_is_no_tree(prompt, paths):
    """Two samples share 1 of 41 tokens, or 8 of 48."""
    samples = [_sample([1] * prompt + [2 + i] * 40, prompt) for i in range(2)]
    ((packs,),) = plan_packs(samples, ranks=1, minibatches=1, micro_batch_tokens=1000, share_prefixes=True)
    assert [pack.paths is not None for pack in packs] == [paths]
