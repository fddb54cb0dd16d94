"""Attention over packs in training, and over a paged KV cache in inference.

Shapes: T rows, Hq query heads, Hkv key-value heads, D channels of a head.
"""

from __future__ import annotations

import torch

from rlsync.kernels.attention_spec import AttentionSpec
from rlsync.kernels.ops.backends import backend


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, spec):  # type: ignore[no-untyped-def]
        kernels = backend(q)
        if spec.paths is None:
            out, lse = kernels.packed_attention(q, k, v, spec.starts, spec.scale, spec.window)
        else:
            out, lse = kernels.tree_attention(q, k, v, spec.starts, spec.paths, spec.scale, spec.window)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.spec = spec
        return out

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        spec, kernels = ctx.spec, backend(grad)
        longest = spec.longest or int(spec.starts.diff().max())
        if spec.paths is None:
            grads = kernels.packed_attention_backward(
                grad, *ctx.saved_tensors, spec.starts, spec.scale, spec.window, longest
            )
        else:
            grads = kernels.tree_attention_backward(
                grad, *ctx.saved_tensors, spec.starts, spec.paths, spec.scale, spec.window, longest
            )
        return *grads, None


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, spec: AttentionSpec) -> torch.Tensor:
    """Causal attention of the rows of a pack. In a prefix tree a row has the same bits as in a plain pack.

    Args:
        q: [T, Hq, D], where D is a multiple of 4.
        k, v: [T, Hkv, D], where Hkv divides Hq.
        spec: which keys each row attends to.

    Returns:
        [T, Hq, D] in the dtype of q.
    """
    return _Attention.apply(q, k, v, spec)


def paged_attention(
    q: torch.Tensor,
    cache: torch.Tensor,
    table: torch.Tensor,
    starts: torch.Tensor,
    lengths: torch.Tensor,
    scale: float,
    window: int = 0,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention of new tokens over a paged cache (inference only); arguments are as in cpu/attention.py."""
    return backend(q).paged_attention(q, cache, table, starts, lengths, scale, window, out)


def decode_attention(
    q: torch.Tensor,
    cache: torch.Tensor,
    table: torch.Tensor,
    lengths: torch.Tensor,
    scale: float,
    window: int = 0,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """`paged_attention` with one new token, row s of q [S, Hq, D], for each sequence s; a length of 0 is padding."""
    return backend(q).decode_attention(q, cache, table, lengths, scale, window, out)


def write_cache(k: torch.Tensor, v: torch.Tensor, cache: torch.Tensor, slots: torch.Tensor) -> None:
    """Write new keys and values [T, Hkv, D] into a paged cache.

    Args:
        k, v: [T, Hkv, D].
        cache: [blocks, Hkv, page, 2D], where a block has `page` tokens.
        slots: [T], the place of each token, block * page + offset; a token with slot -1 is not written (GPU only).
    """
    backend(k).write_cache(k, v, cache, slots)


def rope(
    q: torch.Tensor, k: torch.Tensor, table: torch.Tensor, positions: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotate q [T, Hq, D] and k [T, Hkv, D] by rows `positions` [T] of a rope_table (inference only)."""
    return backend(q).rope(q, k, table, positions)
