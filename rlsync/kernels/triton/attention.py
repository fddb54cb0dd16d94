"""Causal attention by logical key positions: one recurrence for training on packs, chunked prefill and paged decode.

Keys are cut at logical multiples of SPLIT, and within a split at multiples of TILE. An online softmax runs over the
tiles of a split in order, and then the states of the splits merge in order. A tile that a row does not see leaves the
row's state as it is. The bits of a row therefore do not depend on other rows, pages, chunks, or the number of programs
that share the splits. The row sum is an MMA with a matrix of ones, so its order is that of the MMA in k, whatever the
layout of the warps.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _tile(
    q, k, v, table, positions, start, last, page, stride_kb, stride_kt, stride_vb, stride_vt, scale_log2, window,
    highest, total, acc, ones,
    D: tl.constexpr, TILE: tl.constexpr, PAGED: tl.constexpr, HIDES: tl.constexpr,
):  # fmt: skip
    """Add one tile of keys to the state of a split: highest [BM], total [BM, 16], acc [BM, D].

    Without HIDES every row sees every key of the tile.
    """
    dims = tl.arange(0, D)
    keys = start + tl.arange(0, TILE)
    if PAGED:
        exists = keys < last
        block = tl.load(table + keys // page, mask=exists, other=0).to(tl.int64)
        k_row = block * stride_kb + (keys % page) * stride_kt
        v_row = block * stride_vb + (keys % page) * stride_vt
    else:
        k_row = keys.to(tl.int64) * stride_kt
        v_row = keys.to(tl.int64) * stride_vt
    k_at = k + k_row[None, :] + dims[:, None]
    v_at = v + v_row[:, None] + dims[None, :]
    if HIDES:
        k_tile = tl.load(k_at, mask=(keys < last)[None, :], other=0.0)
        v_tile = tl.load(v_at, mask=(keys < last)[:, None], other=0.0)
    else:
        k_tile = tl.load(k_at)
        v_tile = tl.load(v_at)
    scores = tl.dot(q, k_tile, input_precision="ieee") * scale_log2
    if HIDES:
        distance = positions[:, None] - keys[None, :]
        scores = tl.where((distance >= 0) & (distance < window), scores, float("-inf"))
    top = tl.maximum(highest, tl.max(scores, 1))
    base = tl.where(top == float("-inf"), 0.0, top)
    p = tl.exp2(scores - base[:, None]).to(v_tile.dtype)
    fade = tl.exp2(highest - base)
    acc = tl.dot(p, v_tile, acc * fade[:, None], input_precision="ieee")
    total = tl.dot(p, ones, total * fade[:, None], input_precision="ieee")
    return top, total, acc


@triton.jit
def _merge(highest, total, acc, split_highest, split_total, split_acc):
    """Merge the state of the splits so far with that of the next split."""
    top = tl.maximum(highest, split_highest)
    base = tl.where(top == float("-inf"), 0.0, top)
    old, new = tl.exp2(highest - base), tl.exp2(split_highest - base)
    total = total * old[:, None] + split_total * new[:, None]
    acc = acc * old[:, None] + split_acc * new[:, None]
    return top, total, acc


@triton.jit
def _split(
    q, k, v, table, positions, first, open_from, open_until, last, page,
    stride_kb, stride_kt, stride_vb, stride_vt, scale_log2, window,
    D: tl.constexpr, TILE: tl.constexpr, BM: tl.constexpr, PAGED: tl.constexpr,
):  # fmt: skip
    """The state after keys first .. last - 1. All bounds except `last` are multiples of TILE.

    Every row sees the keys open_from .. open_until - 1. k and v point to the sequence and head.
    """
    highest = tl.full([BM], float("-inf"), tl.float32)
    total = tl.zeros([BM, 16], tl.float32)
    acc = tl.zeros([BM, D], tl.float32)
    ones = tl.full([TILE, 16], 1.0, q.dtype)
    for start in range(first, tl.minimum(open_from, last), TILE):
        highest, total, acc = _tile(
            q, k, v, table, positions, start, last, page, stride_kb, stride_kt, stride_vb, stride_vt, scale_log2,
            window, highest, total, acc, ones, D, TILE, PAGED, True,
        )  # fmt: skip
    for start in range(tl.maximum(first, open_from), tl.minimum(open_until, last), TILE):
        highest, total, acc = _tile(
            q, k, v, table, positions, start, last, page, stride_kb, stride_kt, stride_vb, stride_vt, scale_log2,
            window, highest, total, acc, ones, D, TILE, PAGED, False,
        )  # fmt: skip
    for start in range(tl.maximum(first, tl.maximum(open_from, open_until)), last, TILE):
        highest, total, acc = _tile(
            q, k, v, table, positions, start, last, page, stride_kb, stride_kt, stride_vb, stride_vt, scale_log2,
            window, highest, total, acc, ones, D, TILE, PAGED, True,
        )  # fmt: skip
    return highest, total, acc


@triton.jit
def _sequence_of(block, starts, sequences, rounds, BM: tl.constexpr):
    """The sequence of a block. The blocks of sequence s begin at block starts[s] // BM + s."""
    low, high = 0, sequences
    for _ in range(rounds):
        middle = (low + high) // 2
        before = tl.load(starts + middle) // BM + middle <= block
        low = tl.where(before, middle, low)
        high = tl.where(before, high, middle)
    return low


@triton.jit
def _normalised(total, acc):
    """Divide acc [BM, D] by its sums, which are in every column of `total`; returns the quotient and the sums [BM].

    There is one division for each row, because a division for each element would double the time of a short prefill.
    """
    sums = tl.max(total, 1)
    sums = tl.where(sums == 0.0, 1.0, sums)
    # Adding 0.0 turns -0.0 into +0.0, because that sign depends on which hidden tiles were visited.
    return acc * tl.div_rn(1.0, sums)[:, None] + 0.0, sums


@triton.jit(do_not_specialize=["sequences", "rounds", "window", "pages"])
def prefill(
    q, k, v, out, lse, table, starts, lengths, sequences, rounds,
    group, scale_log2, window, page, pages, heads,
    stride_qt, stride_qh, stride_kb, stride_kt, stride_kh, stride_vb, stride_vt, stride_vh, stride_ot, stride_oh,
    D: tl.constexpr, TILE: tl.constexpr, SPLIT: tl.constexpr, BM: tl.constexpr, PAGED: tl.constexpr,
):  # fmt: skip
    """Attention of a block of BM consecutive queries of one sequence and head.

    The last blocks, whose rows see the most keys, run first. starts [S + 1]: offsets of the sequences' rows in q.
    lengths [S]: number of keys of each paged sequence, whose queries are its last tokens. Without pages, keys and
    values lie at the same rows as the queries.
    """
    head, block = tl.program_id(0), tl.num_programs(1) - 1 - tl.program_id(1)
    seq = _sequence_of(block, starts, sequences, rounds, BM)
    begin = tl.load(starts + seq)
    count = tl.load(starts + seq + 1) - begin
    first_row = (block - begin // BM - seq) * BM
    if first_row >= count:
        return
    length = count
    if PAGED:
        length = tl.load(lengths + seq)
    rows = first_row + tl.arange(0, BM)
    row_ok = rows < count
    positions = length - count + rows
    dims = tl.arange(0, D)
    q_at = q + (begin + rows)[:, None].to(tl.int64) * stride_qt + head * stride_qh + dims[None, :]
    q_tile = tl.load(q_at, mask=row_ok[:, None], other=0.0)
    kv_head = head // group
    k += kv_head * stride_kh
    v += kv_head * stride_vh
    if not PAGED:
        k += begin.to(tl.int64) * stride_kt
        v += begin.to(tl.int64) * stride_vt
    last = tl.minimum(length, length - count + first_row + BM)
    oldest = tl.maximum(0, length - count + first_row - window + 1)
    # All rows see the keys from open_from, where the window of the last row begins, to open_until, the first row's end.
    open_from = tl.cdiv(tl.maximum(0, length - count + first_row + BM - window), TILE) * TILE
    open_until = (length - count + first_row + 1) // TILE * TILE
    highest = tl.full([BM], float("-inf"), tl.float32)
    total = tl.zeros([BM, 16], tl.float32)
    acc = tl.zeros([BM, D], tl.float32)
    for split in range(oldest // SPLIT, tl.cdiv(last, SPLIT)):
        first = tl.maximum(split * SPLIT, oldest // TILE * TILE)
        h, t, a = _split(
            q_tile, k, v, table + seq.to(tl.int64) * pages, positions,
            first, open_from, open_until, tl.minimum(last, (split + 1) * SPLIT), page,
            stride_kb, stride_kt, stride_vb, stride_vt, scale_log2, window, D, TILE, BM, PAGED,
        )  # fmt: skip
        highest, total, acc = _merge(highest, total, acc, h, t, a)
    result, sums = _normalised(total, acc)
    out_at = out + (begin + rows)[:, None].to(tl.int64) * stride_ot + head * stride_oh + dims[None, :]
    tl.store(out_at, result.to(out.dtype.element_ty), mask=row_ok[:, None])
    lse_at = lse + (begin + rows).to(tl.int64) * heads + head
    tl.store(lse_at, (highest + tl.log2(sums)) * 0.6931471805599453, mask=row_ok)


@triton.jit(do_not_specialize=["window", "pages", "splits"])
def decode_split(
    q, k, v, part_acc, part_stats, table, lengths, group, scale_log2, window, page, pages, splits,
    stride_qt, stride_qh, stride_kb, stride_kt, stride_kh, stride_vb, stride_vt, stride_vh,
    D: tl.constexpr, TILE: tl.constexpr, SPLIT: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """One split of the attention of one query token, for all query heads of a KV head.

    The state goes to part_acc [S, Hkv, splits, group, D] and part_stats [S, Hkv, splits, 2, group].
    """
    seq, kv_head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    length = tl.load(lengths + seq)
    oldest = tl.maximum(0, length - window)
    if (split * SPLIT >= length) | ((split + 1) * SPLIT <= oldest):
        return
    rows, dims = tl.arange(0, BM), tl.arange(0, D)
    q_at = q + seq.to(tl.int64) * stride_qt + (kv_head * group + rows)[:, None] * stride_qh + dims[None, :]
    q_tile = tl.load(q_at, mask=(rows < group)[:, None], other=0.0)
    positions = tl.zeros([BM], tl.int32) + (length - 1)
    h, t, a = _split(
        q_tile, k + kv_head * stride_kh, v + kv_head * stride_vh, table + seq.to(tl.int64) * pages, positions,
        tl.maximum(split * SPLIT, oldest // TILE * TILE), tl.cdiv(oldest, TILE) * TILE, length // TILE * TILE,
        tl.minimum(length, (split + 1) * SPLIT), page, stride_kb, stride_kt, stride_vb, stride_vt, scale_log2, window,
        D, TILE, BM, True,
    )  # fmt: skip
    slot = (seq.to(tl.int64) * tl.num_programs(1) + kv_head) * splits + split
    tl.store(part_acc + (slot * group + rows[:, None]) * D + dims[None, :], a, mask=(rows < group)[:, None])
    tl.store(part_stats + slot * 2 * group + rows, h, mask=rows < group)
    tl.store(part_stats + (slot * 2 + 1) * group + rows, tl.max(t, 1), mask=rows < group)


@triton.jit(do_not_specialize=["window", "splits"])
def decode_merge(
    part_acc, part_stats, out, lengths, group, window, splits, stride_ot, stride_oh,
    D: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """Merge the splits of one token and head in order. out [S, Hq, D]."""
    seq, head = tl.program_id(0), tl.program_id(1)
    length = tl.load(lengths + seq)
    oldest = tl.maximum(0, length - window)
    dims, one = tl.arange(0, D), tl.arange(0, 1)
    row = head % group
    base = (seq.to(tl.int64) * (tl.num_programs(1) // group) + head // group) * splits
    highest = tl.full([1], float("-inf"), tl.float32)
    total = tl.zeros([1, 1], tl.float32)
    acc = tl.zeros([1, D], tl.float32)
    for split in range(oldest // SPLIT, tl.cdiv(length, SPLIT)):
        slot = base + split
        a = tl.load(part_acc + (slot * group + row) * D + one[:, None] + dims[None, :])
        h = tl.load(part_stats + slot * 2 * group + row + one)
        t = tl.load(part_stats + (slot * 2 + 1) * group + row + one)
        highest, total, acc = _merge(highest, total, acc, h, t[:, None], a)
    result, _ = _normalised(total, acc)
    at = out + seq.to(tl.int64) * stride_ot + head * stride_oh + one[:, None] + dims[None, :]
    tl.store(at, result.to(out.dtype.element_ty))
