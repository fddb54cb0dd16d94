"""Digests of rows of logits: every bit counts, and digests of parts of the vocabulary add up."""

import numpy as np
import pytest
import torch

from rlsync.kernels import ops
from rlsync.kernels.row_keys import HIGH, HIGH_SHIFT, LOW, LOW_SHIFT

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


def test_digests_are_sums_of_bits_times_keys_so_those_of_parts_of_the_vocabulary_add_up():
    bits = _logits().view(torch.int32).numpy().view(np.uint32).astype(object)
    keys = []
    for token in range(VOCABULARY):
        low, high = token * LOW % 2**32, token * HIGH % 2**32
        keys.append(((low ^ (low >> LOW_SHIFT)) | 1) + ((high ^ (high >> HIGH_SHIFT)) << 32))
    products = bits * np.array(keys, dtype=object)
    parts = products[:, :400].sum(1) + products[:, 400:].sum(1)
    assert [int(part) % 2**64 for part in parts] == [digest % 2**64 for digest in ops.row_digests(_logits()).tolist()]


def test_no_two_of_many_tokens_share_a_key():
    zeros = torch.zeros(150_000 // 50, 150_000)
    zeros.view(torch.int32)[torch.arange(3000), torch.arange(3000) * 50] = 1
    assert ops.row_digests(zeros).unique().numel() == 3000
