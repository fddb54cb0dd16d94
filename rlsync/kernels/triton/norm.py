"""RMSNorm, and the residual add before it."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from rlsync.kernels.triton.tiles import ceil_div, power_of_two

_LARGEST_BLOCK = 8192
"""A longer row is summed in blocks of this size, in order, so the order depends on the row's length only."""
_SHORT, _SHORT_ROWS = 256, 16
"""Rows of at most the first number of elements, such as those of heads, are handled by a program in groups of the
second number."""


@triton.jit
def _row_value(x_row, residual_row, at, mask, ADDS: tl.constexpr):
    """The values to normalise: x, or x + residual rounded to the compute dtype."""
    value = tl.load(x_row + at, mask=mask, other=0.0)
    if ADDS:
        value = value.to(tl.float32) + tl.load(residual_row + at, mask=mask, other=0.0).to(tl.float32)
    return value.to(x_row.dtype.element_ty)


@triton.jit
def _normed(value, rstd, weight):
    """The product of value and rstd, rounded, times weight, rounded."""
    scaled = (value.to(tl.float32) * rstd).to(weight.dtype)
    return (scaled * weight).to(value.dtype)


@triton.jit(do_not_specialize=["rows"])
def _rms_norm_kernel(
    x, residual, w, out, sum_out, rstd_out, rows, n, heads, stride_t, stride_h, eps,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, WHOLE: tl.constexpr, ADDS: tl.constexpr,
):  # fmt: skip
    """Normalise rows of x [T, heads, n], which has strides; residual, sum_out and out are dense.

    With WHOLE a row is one block.
    """
    index = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    there = (index < rows)[:, None]
    x_row = (x + index // heads * stride_t + index % heads * stride_h)[:, None]
    row = (index * n)[:, None]
    lanes = tl.arange(0, BLOCK)[None, :]
    total = tl.zeros([ROWS, BLOCK], tl.float32)
    if WHOLE:  # the weight is loaded while the row is summed
        weight = tl.load(w + lanes, mask=lanes < n, other=0.0)
        value = _row_value(x_row, residual + row, lanes, there & (lanes < n), ADDS)
        if ADDS:
            tl.store(sum_out + row + lanes, value, mask=there & (lanes < n))
        total = value.to(tl.float32) * value.to(tl.float32)
    else:
        for start in range(0, n, BLOCK):
            at = start + lanes
            part = _row_value(x_row, residual + row, at, there & (at < n), ADDS)
            if ADDS:
                tl.store(sum_out + row + at, part, mask=there & (at < n))
            total += part.to(tl.float32) * part.to(tl.float32)
    mean = tl.sum(total, 1) / (n * 1.0)
    rstd = tl.div_rn(1.0, tl.sqrt_rn(mean + eps))
    tl.store(rstd_out + index, rstd, mask=index < rows)
    if WHOLE:
        tl.store(out + row + lanes, _normed(value, rstd[:, None], weight), mask=there & (lanes < n))
    else:
        for start in range(0, n, BLOCK):
            at = start + lanes
            part = _row_value(x_row, residual + row, at, there & (at < n), ADDS)
            part_weight = tl.load(w + at, mask=at < n, other=0.0)
            tl.store(out + row + at, _normed(part, rstd[:, None], part_weight), mask=there & (at < n))


def rms_norm(x: torch.Tensor, w: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """RMSNorm of x [..., H] as in cpu/norm.py: the result [..., H], and rstd [rows, 1] fp32."""
    out, rstd, _ = _launch(x, None, w, eps)
    return out, rstd


def add_rms_norm(
    x: torch.Tensor, residual: torch.Tensor, w: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """RMSNorm of the rounded sum x + residual [..., H], and that sum."""
    out, _, total = _launch(x, residual.contiguous(), w, eps)
    return out, total


def _launch(
    x: torch.Tensor, residual: torch.Tensor | None, w: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    n = x.shape[-1]
    view = x.reshape(-1, x.shape[-2] if x.ndim > 2 else 1, n)
    view = view if view.stride(2) == 1 else view.contiguous()
    rows = view.shape[0] * view.shape[1]
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    total = out if residual is None else torch.empty_like(residual)
    rstd = torch.empty(rows, 1, dtype=torch.float32, device=x.device)
    block = min(power_of_two(n), _LARGEST_BLOCK)
    together = _SHORT_ROWS if block <= _SHORT else 1
    _rms_norm_kernel[(ceil_div(rows, together),)](
        view, out if residual is None else residual, w, out, total, rstd, rows, n, view.shape[1], view.stride(0),
        view.stride(1), eps, ROWS=together, BLOCK=block, WHOLE=n <= block, ADDS=residual is not None,
        num_warps=min(16, max(1, together * block // 256)), enable_fp_fusion=False,
    )  # fmt: skip
    return out, rstd, total
