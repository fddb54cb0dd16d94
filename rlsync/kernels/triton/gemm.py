"""GEMM with the reduction tree, for few rows, odd shapes and any stride.

There are three forms: a program computes all leaves side by side, or one after another, or each leaf has a program of
its own and a combine follows. The number of rows is not a compile-time constant, so one compiled kernel serves all
batches.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["m"])
def leaf_gemm(
    x, w, bias, out, m, n, leaf_k, stride_xm, stride_xk, stride_wn, stride_wk,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, EVEN_K: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """The leaves x[:, leaf i] w[:, leaf i]^T, summed in increasing k, in out [LEAVES, M, N] fp32.

    With one leaf this kernel also adds the bias and rounds to the dtype of out.
    """
    column, leaf, row = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    rows = row * BM + tl.arange(0, BM)
    columns = column * BN + tl.arange(0, BN)
    ks = tl.arange(0, BK)
    row_ok, column_ok = rows[:, None] < m, columns[None, :] < n
    first = leaf.to(tl.int64) * leaf_k
    x_at = x + rows[:, None].to(tl.int64) * stride_xm + (first + ks[None, :]) * stride_xk
    w_at = w + columns[None, :].to(tl.int64) * stride_wn + (first + ks[:, None]) * stride_wk
    acc = tl.zeros([BM, BN], tl.float32)
    for k in range(0, leaf_k, BK):
        if EVEN_K:
            x_tile = tl.load(x_at, mask=row_ok, other=0.0)
            w_tile = tl.load(w_at, mask=column_ok, other=0.0)
        else:
            x_tile = tl.load(x_at, mask=row_ok & (k + ks[None, :] < leaf_k), other=0.0)
            w_tile = tl.load(w_at, mask=column_ok & (k + ks[:, None] < leaf_k), other=0.0)
        acc = tl.dot(x_tile, w_tile, acc, input_precision="ieee")
        x_at += BK * stride_xk
        w_at += BK * stride_wk
    if HAS_BIAS:
        acc += tl.load(bias + columns, mask=columns < n, other=0.0).to(tl.float32)[None, :]
    at = out + (leaf.to(tl.int64) * m + rows[:, None]) * n + columns[None, :]
    tl.store(at, acc.to(out.dtype.element_ty), mask=row_ok & column_ok)


@triton.jit
def _halve(parts, COUNT: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    """Add neighbours: [COUNT, BM, BN] -> [COUNT / 2, BM, BN]."""
    left, right = tl.split(tl.permute(tl.reshape(parts, [COUNT // 2, 2, BM, BN]), [0, 2, 3, 1]))
    return left + right


@triton.jit(do_not_specialize=["m"])
def side_by_side(
    x, w, bias, out, m, n, leaf_k, stride_xm, stride_xk, stride_wn, stride_wk,
    LEAVES: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """Compute out [M, N] = round(tree(x w^T) + bias) with all leaves in one batched MMA; BK divides leaf_k."""
    column, row = tl.program_id(0), tl.program_id(1)
    rows = row * BM + tl.arange(0, BM)
    columns = column * BN + tl.arange(0, BN)
    leaves = tl.arange(0, LEAVES)
    ks = tl.arange(0, BK)
    row_ok, column_ok = rows[None, :, None] < m, columns[None, None, :] < n
    first = leaves[:, None, None].to(tl.int64) * leaf_k
    x_at = x + rows[None, :, None].to(tl.int64) * stride_xm + (first + ks[None, None, :]) * stride_xk
    w_at = w + columns[None, None, :].to(tl.int64) * stride_wn + (first + ks[None, :, None]) * stride_wk
    acc = tl.zeros([LEAVES, BM, BN], tl.float32)
    for _ in range(0, leaf_k, BK):
        x_tile = tl.load(x_at, mask=row_ok, other=0.0)
        w_tile = tl.load(w_at, mask=column_ok, other=0.0)
        acc = tl.dot(x_tile, w_tile, acc, input_precision="ieee")
        x_at += BK * stride_xk
        w_at += BK * stride_wk
    if LEAVES == 16:
        acc = _halve(acc, 16, BM, BN)
    if LEAVES >= 8:
        acc = _halve(acc, 8, BM, BN)
    if LEAVES >= 4:
        acc = _halve(acc, 4, BM, BN)
    if LEAVES >= 2:
        acc = _halve(acc, 2, BM, BN)
    root = tl.reshape(acc, [BM, BN])
    if HAS_BIAS:
        root += tl.load(bias + columns, mask=columns < n, other=0.0).to(tl.float32)[None, :]
    at = out + rows[:, None].to(tl.int64) * n + columns[None, :]
    tl.store(at, root.to(out.dtype.element_ty), mask=(rows[:, None] < m) & (columns[None, :] < n))


@triton.jit(do_not_specialize=["m"])
def in_turn(
    x, w, bias, out, m, n, leaf_steps, stride_xm, stride_xk, stride_wn, stride_wk,
    LEAVES: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """Compute out [M, N] = round(tree(x w^T) + bias) with one leaf after another in a single loop over K.

    A leaf has leaf_steps tiles of BK. The variables one, two, four and eight hold the roots of subtrees with that many
    leaves, which wait for their sibling.
    """
    tl.static_assert(LEAVES <= 16)
    column, row = tl.program_id(0), tl.program_id(1)
    rows = row * BM + tl.arange(0, BM)
    columns = column * BN + tl.arange(0, BN)
    ks = tl.arange(0, BK)
    row_ok, column_ok = rows[:, None] < m, columns[None, :] < n
    x_at = x + rows[:, None].to(tl.int64) * stride_xm + ks[None, :] * stride_xk
    w_at = w + columns[None, :].to(tl.int64) * stride_wn + ks[:, None] * stride_wk
    acc = tl.zeros([BM, BN], tl.float32)
    root, one, two, four, eight = acc, acc, acc, acc, acc
    for step in range(LEAVES * leaf_steps):
        x_tile = tl.load(x_at, mask=row_ok, other=0.0)
        w_tile = tl.load(w_at, mask=column_ok, other=0.0)
        acc = tl.dot(x_tile, w_tile, acc, input_precision="ieee")
        x_at += BK * stride_xk
        w_at += BK * stride_wk
        if step % leaf_steps == leaf_steps - 1:
            leaf = step // leaf_steps
            root = acc
            acc = tl.zeros([BM, BN], tl.float32)
            if leaf % 2 == 0:
                one = root
            else:
                root = one + root
                if leaf % 4 == 1:
                    two = root
                else:
                    root = two + root
                    if leaf % 8 == 3:
                        four = root
                    else:
                        root = four + root
                        if leaf == 7:
                            eight = root
                        else:
                            root = eight + root
    if HAS_BIAS:
        root += tl.load(bias + columns, mask=columns < n, other=0.0).to(tl.float32)[None, :]
    at = out + rows[:, None].to(tl.int64) * n + columns[None, :]
    tl.store(at, root.to(out.dtype.element_ty), mask=row_ok & column_ok)


@triton.jit
def subtree(parts, at, stride, mask, FIRST: tl.constexpr, COUNT: tl.constexpr):
    """The root of the leaves FIRST .. FIRST + COUNT - 1, which lie `stride` elements apart."""
    if COUNT == 1:
        return tl.load(parts + FIRST * stride + at, mask=mask, other=0.0)
    else:
        left = subtree(parts, at, stride, mask, FIRST, COUNT // 2)
        right = subtree(parts, at, stride, mask, FIRST + COUNT // 2, COUNT // 2)
        return left + right


@triton.jit(do_not_specialize=["size"])
def combine(parts, bias, out, size, n, LEAVES: tl.constexpr, BLOCK: tl.constexpr, HAS_BIAS: tl.constexpr):
    """Compute out [M, N] = round(tree of parts [LEAVES, M, N] + bias); size = M N."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < size
    root = subtree(parts, at, size, mask, 0, LEAVES)
    if HAS_BIAS:
        root += tl.load(bias + at % n, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + at, root.to(out.dtype.element_ty), mask=mask)
