"""The ops of the forward pass, with autograd. The forward pass is exact; the backward pass is any correct gradient.

Compute dtypes are fp32 and bf16. Every output value of a forward pass depends on its own row only.
"""

from rlsync.kernels.ops.activation import silu_and_mul
from rlsync.kernels.ops.attention import attention, decode_attention, paged_attention, rope, write_cache
from rlsync.kernels.ops.backends import Backend, GpuBackend, backend, gpu_backend
from rlsync.kernels.ops.embedding import embedding
from rlsync.kernels.ops.linear import linear, lm_head, row_parallel_linear, row_parallel_root
from rlsync.kernels.ops.norm import add_rms_norm, rms_norm
from rlsync.kernels.ops.sampling import draw, draw_scored, greedy, logprobs, row_digests

__all__ = [
    "Backend",
    "GpuBackend",
    "add_rms_norm",
    "attention",
    "backend",
    "decode_attention",
    "draw",
    "draw_scored",
    "embedding",
    "gpu_backend",
    "greedy",
    "linear",
    "lm_head",
    "logprobs",
    "paged_attention",
    "rms_norm",
    "rope",
    "row_digests",
    "row_parallel_linear",
    "row_parallel_root",
    "silu_and_mul",
    "write_cache",
]
