"""CPU kernels: numba loops in which the order of every sum is written out, without fast-math.

Vector instructions run across independent outputs, no reduction is left to the compiler, and exp and log consist of
IEEE additions and multiplications. The bits are therefore the same on every x86 machine, whatever its vector width.
"""

from rlsync.kernels.cpu.activation import silu_and_mul
from rlsync.kernels.cpu.attention import (
    decode_attention,
    packed_attention,
    paged_attention,
    tree_attention,
    write_cache,
)
from rlsync.kernels.cpu.attention_backward import packed_attention_backward, tree_attention_backward
from rlsync.kernels.cpu.gemm import matmul
from rlsync.kernels.cpu.logprobs import logprobs
from rlsync.kernels.cpu.norm import add_rms_norm, rms_norm
from rlsync.kernels.cpu.rope import rope
from rlsync.kernels.cpu.row_digests import row_digests
from rlsync.kernels.cpu.sampling import draw
from rlsync.kernels.cpu.scores import draw_scored, logit_grads, row_scores

__all__ = [
    "add_rms_norm",
    "decode_attention",
    "draw",
    "draw_scored",
    "logit_grads",
    "logprobs",
    "matmul",
    "packed_attention",
    "packed_attention_backward",
    "paged_attention",
    "rms_norm",
    "rope",
    "row_digests",
    "row_scores",
    "silu_and_mul",
    "tree_attention",
    "tree_attention_backward",
    "write_cache",
]
