"""GPU kernels: same names and meaning as rlsync.kernels.cpu, bits of their own.

Tiles are chosen by shape from a frozen table, and every choice gives the same bits.
"""

from rlsync.kernels.triton.activation import silu_and_mul
from rlsync.kernels.triton.attend import packed_attention, packed_attention_backward, paged_attention
from rlsync.kernels.triton.logprobs import logprobs
from rlsync.kernels.triton.matmul import matmul
from rlsync.kernels.triton.norm import rms_norm
from rlsync.kernels.triton.sampling import draw

__all__ = [
    "draw",
    "logprobs",
    "matmul",
    "packed_attention",
    "packed_attention_backward",
    "paged_attention",
    "rms_norm",
    "silu_and_mul",
]
