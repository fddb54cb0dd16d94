"""The ops of the forward pass, with autograd. The forward is the contract; the backward is any right one.

Shapes: T tokens, K inputs, N outputs, H heads, D head dim, V vocabulary. Model dtypes are fp32 and bf16.
Every forward is a function of its own row alone.
"""

from __future__ import annotations

import functools
import importlib
from types import ModuleType

import torch
import torch.nn.functional as F

from rlsync.errors import ConfigError
from rlsync.kernels.key_paths import KeyPaths

_BACKENDS = {"cpu": "rlsync.kernels.cpu", "cuda": "rlsync.kernels.triton"}


def backend(x: torch.Tensor) -> ModuleType:
    """The module of raw forwards for x's device.

    Raises:
        ConfigError: no kernels for that device in this release.
    """
    return _load_backend(x.device.type)


@functools.cache
def _load_backend(device: str) -> ModuleType:
    # Loaded at first use: vLLM scans all modules when a worker starts, and stumbles over llvmlite's lazy objects.
    if device not in _BACKENDS:
        raise ConfigError(
            f"kernels=invariant has no kernels for device {device}, only for {', '.join(_BACKENDS)}. "
            "kernels=native trains without the guarantee."
        )
    return importlib.import_module(_BACKENDS[device])


def row_parallel_root(x: torch.Tensor, w: torch.Tensor, leaves: int) -> torch.Tensor:
    """The root of the subtree that x [..., K] w [N, K]^T spans, before bias and rounding: [..., N] fp32."""
    return _matmul(x, w, None, leaves, torch.float32)


def _matmul(
    x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None, leaves: int, out_dtype: torch.dtype
) -> torch.Tensor:
    out = backend(x).matmul(x.reshape(-1, x.shape[-1]), w, bias, leaves, out_dtype)
    return out.view(*x.shape[:-1], w.shape[0])


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w, bias, leaves, out_dtype):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x, w)
        ctx.bias_dtype = None if bias is None else bias.dtype
        return _matmul(x, w, bias, leaves, out_dtype)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        x, w = ctx.saved_tensors
        # A bf16 product of the library is fast on a GPU (and sums in fp32), slow on a CPU.
        kind = x.dtype if x.is_cuda else torch.float32
        rows = grad.reshape(-1, grad.shape[-1])
        narrow = rows.to(kind)
        grad_x = (narrow @ w.to(kind)).to(x.dtype).view(x.shape) if ctx.needs_input_grad[0] else None
        grad_w = (narrow.t() @ x.reshape(-1, x.shape[-1]).to(kind)).to(w.dtype) if ctx.needs_input_grad[1] else None
        grad_b = rows.sum(0, dtype=torch.float32).to(ctx.bias_dtype) if ctx.needs_input_grad[2] else None
        return grad_x, grad_w, grad_b, None, None


def _linear(
    x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None, leaves: int, out_dtype: torch.dtype
) -> torch.Tensor:
    if torch.is_grad_enabled():
        return _Linear.apply(x, w, bias, leaves, out_dtype)
    return _matmul(x, w, bias, leaves, out_dtype)  # autograd's records, here and below, take a third of a launch


def linear(x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """round(x w^T + bias): each output one whole-K sum in increasing k. [..., K], [N, K] -> [..., N]."""
    return _linear(x, w, bias, 1, x.dtype)


def row_parallel_linear(
    x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None = None, *, leaves: int
) -> torch.Tensor:
    """Like `linear`, but K sums in the tree of `leaves` leaves (order.py), as TP ranks together do."""
    return _linear(x, w, bias, leaves, x.dtype)


def lm_head(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """fp32 logits of hidden states in the model's dtype. [T, K], [V, K] -> [T, V]."""
    return _linear(x, w, None, 1, torch.float32)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w, eps):  # type: ignore[no-untyped-def]
        out, rstd = backend(x).rms_norm(x, w, eps)
        ctx.save_for_backward(x, w, rstd)
        return out

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        x, w, rstd = ctx.saved_tensors
        rows = x.reshape(-1, x.shape[-1])
        normed = rows.to(torch.float32) * rstd
        grad32 = grad.reshape(rows.shape).to(torch.float32)
        grad_normed = grad32 * w.to(torch.float32)
        mean = (grad_normed * normed).mean(-1, keepdim=True)
        grad_x = ((grad_normed - normed * mean) * rstd).to(rows.dtype).view(grad.shape)
        return grad_x, (grad32 * normed).sum(0).to(w.dtype), None


def rms_norm(x: torch.Tensor, w: torch.Tensor, eps: float) -> torch.Tensor:
    """RMSNorm over the last dim in Hugging Face's rounding: x rstd in fp32, round, times w, round."""
    return _RMSNorm.apply(x, w, eps) if torch.is_grad_enabled() else backend(x).rms_norm(x, w, eps)[0]


def add_rms_norm(
    x: torch.Tensor, residual: torch.Tensor, w: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """rms_norm of the rounded sum x + residual, and that sum (inference only). [..., H] each."""
    return backend(x).add_rms_norm(x, residual, w, eps)


class _SiluAndMul(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gate, up):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(gate, up)
        return backend(gate).silu_and_mul(gate, up)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        gate, up = ctx.saved_tensors
        gate32, grad32 = gate.to(torch.float32), grad.to(torch.float32)
        sigmoid = torch.sigmoid(gate32)
        silu = gate32 * sigmoid
        grad_gate = grad32 * up.to(torch.float32) * (sigmoid + silu * (1 - sigmoid))
        return grad_gate.to(gate.dtype), (grad32 * silu).to(up.dtype)


def silu_and_mul(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """round(silu(gate)) * up, rounded. Any shape."""
    return _SiluAndMul.apply(gate, up) if torch.is_grad_enabled() else backend(gate).silu_and_mul(gate, up)


class _TreeAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, starts, paths, scale, window, longest):  # type: ignore[no-untyped-def]
        out, lse = backend(q).tree_attention(q, k, v, starts, paths, scale, window)
        ctx.save_for_backward(q, k, v, out, lse, starts)
        ctx.paths, ctx.scale, ctx.window, ctx.longest = paths, scale, window, longest
        return out

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        grads = backend(grad).tree_attention_backward(
            grad, *ctx.saved_tensors, ctx.paths, ctx.scale, ctx.window, ctx.longest
        )
        return *grads, None, None, None, None, None


def tree_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    starts: torch.Tensor,
    paths: KeyPaths,
    scale: float,
    window: int = 0,
    *,
    longest: int,
) -> torch.Tensor:
    """`packed_attention` of sequences whose shared prefixes are there once: the same bits for every row.

    Args:
        q, k, v, window: as in packed_attention.
        starts: [G + 1] integer offsets of the segments.
        paths: the keys that each segment reads.
        longest: rows of the longest segment.
    """
    return _TreeAttention.apply(q, k, v, starts, paths, scale, window, longest)


class _PackedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, starts, scale, window, longest):  # type: ignore[no-untyped-def]
        out, lse = backend(q).packed_attention(q, k, v, starts, scale, window)
        ctx.save_for_backward(q, k, v, out, lse, starts)
        ctx.scale, ctx.window, ctx.longest = scale, window, longest
        return out

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        q, k, v, out, lse, starts = ctx.saved_tensors
        longest = ctx.longest or int(starts.diff().max())
        grads = backend(q).packed_attention_backward(grad, q, k, v, out, lse, starts, ctx.scale, ctx.window, longest)
        return *grads, None, None, None, None


def packed_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    starts: torch.Tensor,
    scale: float,
    window: int = 0,
    *,
    longest: int | None = None,
) -> torch.Tensor:
    """Causal attention of sequences laid end to end.

    Args:
        q: [T, Hq, D]; k, v: [T, Hkv, D], Hkv divides Hq, D a multiple of 4.
        starts: [S + 1] integer offsets.
        window: keys that a query sees, itself included (q - k < window); 0 = all.
        longest: length of the longest sequence; known to the caller, it spares the backward a wait for the GPU.
    """
    return _PackedAttention.apply(q, k, v, starts, scale, window, longest)


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
    """The same function over a paged cache (inference only); arguments as in cpu/attention.py."""
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
    """`paged_attention` where row s of q [S, Hq, D] is the one new token of sequence s; length 0 = no sequence."""
    return backend(q).decode_attention(q, cache, table, lengths, scale, window, out)


def write_cache(k: torch.Tensor, v: torch.Tensor, cache: torch.Tensor, slots: torch.Tensor) -> None:
    """New keys and values [T, Hkv, D] into a paged cache, at slots [T] = block * page + offset; -1 = nowhere."""
    backend(k).write_cache(k, v, cache, slots)


def rope(
    q: torch.Tensor, k: torch.Tensor, table: torch.Tensor, positions: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotate q [T, Hq, D] and k [T, Hkv, D] by rows `positions` [T] of a rope_table (inference only)."""
    return backend(q).rope(q, k, table, positions)


class _Logprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, temperature):  # type: ignore[no-untyped-def]
        out = backend(logits).logprobs(logits, temperature)
        ctx.save_for_backward(out)
        ctx.temperature = temperature
        return out

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        (out,) = ctx.saved_tensors
        return (grad - out.exp() * grad.sum(-1, keepdim=True)) / ctx.temperature, None


def logprobs(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """log_softmax(logits / temperature), fp32 in and out. [T, V] -> [T, V]."""
    return _Logprobs.apply(logits, temperature)


def draw(rows: torch.Tensor, seeds: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Tokens [T] int64: a pure function of log-probs [T, V], seeds [T] and positions [T]."""
    return backend(rows).draw(rows, seeds, positions)


def draw_scored(
    logits: torch.Tensor, temperature: float, seeds: torch.Tensor, positions: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """`draw` of the log-probs of contiguous fp32 logits [T, V], and the log-probs of what was drawn: [T] int64, [T]
    fp32."""
    return backend(logits).draw_scored(logits, temperature, seeds, positions)


def greedy(rows: torch.Tensor) -> torch.Tensor:
    """Most probable token of each row [T, V] -> [T]; a tie goes to the lower id."""
    return (rows == rows.amax(-1, keepdim=True)).to(torch.int8).argmax(-1)


def embedding(ids: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Rows of w; -0.0 becomes +0.0, as the sum over vocabulary shards makes it."""
    return F.embedding(ids, w) + 0.0
