"""CPU kernels: numba loops whose order is written out, without fast-math.

Vectors run across independent outputs; no reduction is left to the compiler, and exp and log are built
from IEEE adds and multiplies. So the bits are the same on every x86 machine, whatever its vector width.
"""

from rlsync.kernels.cpu.activation import silu_and_mul
from rlsync.kernels.cpu.attention import packed_attention, paged_attention
from rlsync.kernels.cpu.attention_backward import packed_attention_backward
from rlsync.kernels.cpu.gemm import matmul
from rlsync.kernels.cpu.logprobs import logprobs
from rlsync.kernels.cpu.norm import rms_norm
from rlsync.kernels.cpu.sampling import draw

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
