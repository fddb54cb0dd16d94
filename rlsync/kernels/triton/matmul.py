"""Matrix products round(tree(x w^T) + bias) on a GPU; chooses among kernels that all give the same bits."""

from __future__ import annotations

import torch

from rlsync.kernels.triton.gemm import combine, in_turn, leaf_gemm, side_by_side
from rlsync.kernels.triton.gemm_hopper import tree_gemm
from rlsync.kernels.triton.gemm_hopper_wide import WIDTHS, wide_gemm
from rlsync.kernels.triton.tiles import (
    BlockTile,
    Form,
    PersistentTile,
    block_tile,
    ceil_div,
    multiprocessors,
    persistent_tile,
    rows_suit_tma,
    shared_memory,
)
from rlsync.kernels.triton.tma import descriptor

_COMBINE_BLOCK = 512
"""Number of elements that a program of `combine` handles."""
_GROUP = 8
"""Number of rows of tiles that the persistent kernels visit together."""


def matmul(
    x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None, leaves: int, out_dtype: torch.dtype
) -> torch.Tensor:
    """The product x [M, K] w [N, K]^T in the tree of `leaves` leaves, plus the bias [N], rounded once: [M, N]."""
    leaf_k = x.shape[1] // leaves
    tile = persistent_tile(x.shape[0], w.shape[0], leaves, leaf_k, out_dtype == torch.float32)
    if tile is not None and _suits_tma(x, w, out_dtype):
        return persistent(x, w, bias, leaves, out_dtype, tile)
    few = block_tile(x.shape[0], w.shape[0], leaves, leaf_k, x.itemsize, shared_memory(x.device))
    return blockwise(x, w, bias, leaves, out_dtype, few)


def persistent(
    x: torch.Tensor,
    w: torch.Tensor,
    bias: torch.Tensor | None,
    leaves: int,
    out_dtype: torch.dtype,
    tile: PersistentTile,
) -> torch.Tensor:
    """Like `matmul`, by a persistent kernel for Hopper; `tile` changes the speed and not the bits."""
    (m, k), n = x.shape, w.shape[0]
    out = torch.empty(m, n, dtype=out_dtype, device=x.device)
    grid = (min(multiprocessors(x.device.index), ceil_div(m, 128) * ceil_div(n, tile.columns)),)
    shared = {"STAGES": tile.stages, "GROUP": _GROUP, "HAS_BIAS": bias is not None, "num_warps": 4,
              "enable_fp_fusion": False}  # fmt: skip
    added = x if bias is None else bias
    if tile.columns == sum(WIDTHS):
        assert leaves == 1, f"tiles of {tile.columns} columns are for one leaf only, and there are {leaves} leaves"
        wide_gemm[grid](
            descriptor(x, 64, tile.depth), *(descriptor(w, width, tile.depth) for width in WIDTHS),
            *(descriptor(out, 64, width) for width in WIDTHS), added, m, n, k // tile.depth, **shared,
        )  # fmt: skip
        return out
    tree_gemm[grid](
        descriptor(x, 64, tile.depth), descriptor(w, tile.columns, tile.depth), descriptor(out, 64, tile.columns),
        added, m, n, k // leaves // tile.depth, leaves // 4, LEAVES=leaves, **shared,
    )  # fmt: skip
    return out


def blockwise(
    x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None, leaves: int, out_dtype: torch.dtype, tile: BlockTile
) -> torch.Tensor:
    """Like `matmul`, by the kernels of gemm.py; `tile` changes the speed and not the bits."""
    (m, k), n = x.shape, w.shape[0]
    leaf_k = k // leaves
    out = torch.empty(m, n, dtype=out_dtype, device=x.device)
    columns, rows = ceil_div(n, tile.columns), ceil_div(m, tile.rows)
    shared = {"BM": tile.rows, "BN": tile.columns, "BK": tile.depth, "num_warps": tile.warps,
              "num_stages": tile.stages, "enable_fp_fusion": False}  # fmt: skip
    added = out if bias is None else bias
    if tile.form is not Form.programs:
        at_once = tile.form is Form.side_by_side
        kernel, leaf_size = (side_by_side, leaf_k) if at_once else (in_turn, leaf_k // tile.depth)
        kernel[(columns, rows)](
            x, w, added, out, m, n, leaf_size, *x.stride(), *w.stride(),
            LEAVES=leaves, HAS_BIAS=bias is not None, **shared,
        )  # fmt: skip
        return out
    parts = out if leaves == 1 else torch.empty(leaves, m, n, dtype=torch.float32, device=x.device)
    leaf_gemm[(columns, leaves, rows)](
        x, w, added, parts, m, n, leaf_k, *x.stride(), *w.stride(),
        EVEN_K=leaf_k % tile.depth == 0, HAS_BIAS=leaves == 1 and bias is not None, **shared,
    )  # fmt: skip
    if leaves > 1:
        fold(parts, bias, out)
    return out


def fold(parts: torch.Tensor, bias: torch.Tensor | None, out: torch.Tensor) -> None:
    """Compute out [M, N] = round(tree of parts [leaves, M, N] + bias)."""
    leaves, m, n = parts.shape
    combine[(ceil_div(m * n, _COMBINE_BLOCK),)](
        parts, out if bias is None else bias, out, m * n, n, LEAVES=leaves, BLOCK=_COMBINE_BLOCK,
        HAS_BIAS=bias is not None, enable_fp_fusion=False,
    )  # fmt: skip


def _suits_tma(x: torch.Tensor, w: torch.Tensor, out_dtype: torch.dtype) -> bool:
    """Whether TMA can move the operands and the result: their rows are contiguous and aligned."""
    operands = all(rows_suit_tma(t) and t.stride(1) == 1 for t in (x, w))
    return operands and w.shape[0] * out_dtype.itemsize % 16 == 0
