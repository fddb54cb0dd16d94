"""RMSNorm, and the residual add before it, a program per row."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

_LARGEST_BLOCK = 8192
"""A longer row is summed in blocks of this size, in order: a function of the row's length alone."""


@triton.jit
def _row_value(x_row, residual_row, at, mask, ADDS: tl.constexpr):
    """What is normalised: x, or x + residual rounded to the model's dtype."""
    value = tl.load(x_row + at, mask=mask, other=0.0)
    if ADDS:
        value = value.to(tl.float32) + tl.load(residual_row + at, mask=mask, other=0.0).to(tl.float32)
    return value.to(x_row.dtype.element_ty)


@triton.jit
def _rms_norm_kernel(
    x, residual, w, out, sum_out, rstd_out, n, heads, stride_t, stride_h, eps,
    BLOCK: tl.constexpr, WHOLE: tl.constexpr, ADDS: tl.constexpr,
):  # fmt: skip
    """x [T, heads, n] by strides; residual, sum_out and out lie densely. WHOLE: a row is one block."""
    index = tl.program_id(0).to(tl.int64)
    x_row = x + index // heads * stride_t + index % heads * stride_h
    row = index * n
    total = tl.zeros([BLOCK], tl.float32)
    at = tl.arange(0, BLOCK)
    value = tl.zeros([BLOCK], x.dtype.element_ty)
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        value = _row_value(x_row, residual + row, at, at < n, ADDS)
        if ADDS:
            tl.store(sum_out + row + at, value, mask=at < n)
        wide = value.to(tl.float32)
        total += wide * wide
    mean = tl.sum(total, 0) / (n * 1.0)
    rstd = tl.div_rn(1.0, tl.sqrt_rn(mean + eps))
    tl.store(rstd_out + index, rstd)
    for start in range(0, n, BLOCK):
        if not WHOLE:
            at = start + tl.arange(0, BLOCK)
            value = _row_value(x_row, residual + row, at, at < n, ADDS)
        weight = tl.load(w + at, mask=at < n, other=0.0)
        normed = (value.to(tl.float32) * rstd).to(weight.dtype)
        tl.store(out + row + at, (normed * weight).to(out.dtype.element_ty), mask=at < n)


def rms_norm(x: torch.Tensor, w: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """round(round(x rstd) w): x [..., H] -> [..., H] and rstd [rows, 1] fp32."""
    out, rstd, _ = _launch(x, None, w, eps)
    return out, rstd


def add_rms_norm(
    x: torch.Tensor, residual: torch.Tensor, w: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The rounded sum x + residual, normalised, and the sum itself; both [..., H]."""
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
    block = min(triton.next_power_of_2(n), _LARGEST_BLOCK)
    _rms_norm_kernel[(rows,)](
        view, out if residual is None else residual, w, out, total, rstd, n, view.shape[1], view.stride(0),
        view.stride(1), eps, BLOCK=block, WHOLE=n <= block, ADDS=residual is not None,
        num_warps=min(16, max(1, block // 256)), enable_fp_fusion=False,
    )  # fmt: skip
    return out, rstd, total
