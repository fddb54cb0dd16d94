"""Digests of rows of logits: every bit counts, and digests of parts of the vocabulary add up."""

import pytest
import torch

from rlsync.kernels import ops
from rlsync.kernels.keyed_sum import Rectangle, keyed_sums

ROWS, VOCABULARY = 5, 1003


def _logits():
    return torch.randn(ROWS, VOCABULARY, generator=torch.Generator().manual_seed(1)) * 9


@pytest.mark.parametrize("bit", [0, 7, 22, 30, 31])
@pytest.mark.parametrize("token", [0, 1, 500, VOCABULARY - 1])
def test_one_bit_of_one_logit_changes_the_digest_of_its_row_only(token, bit):
    logits = _logits()
    other = logits.clone()
    other.view(torch.int32)[3, token] ^= torch.tensor(1 << bit, dtype=torch.int64).to(torch.int32)
    different = ops.row_digests(logits) != ops.row_digests(other)
    assert different.tolist() == [False, False, False, True, False]


def test_two_tokens_cannot_change_places_and_zeros_have_signs():
    logits = _logits()
    swapped = logits.clone()
    swapped[:, [7, 8]] = logits[:, [8, 7]]
    assert not (ops.row_digests(logits) == ops.row_digests(swapped)).any()
    zeros = torch.zeros(1, VOCABULARY)
    assert not torch.equal(ops.row_digests(zeros), ops.row_digests(-zeros))


def test_a_row_does_not_depend_on_its_neighbours_or_its_layout():
    logits = _logits()
    digests = ops.row_digests(logits)
    assert torch.equal(ops.row_digests(logits[2:3]), digests[2:3])
    assert torch.equal(ops.row_digests(logits.t().contiguous().t()), digests)


def test_digests_of_parts_of_the_vocabulary_add_up():
    logits = _logits()
    parts = []
    for row in logits:
        shards = [row[:400], row[400:]]
        rectangles = [
            Rectangle(s[None].contiguous(), torch.float32, 0, at, VOCABULARY)
            for s, at in zip(shards, (0, 400), strict=True)
        ]
        parts.append(keyed_sums(rectangles).sum())
    assert torch.equal(torch.stack(parts), ops.row_digests(logits))
