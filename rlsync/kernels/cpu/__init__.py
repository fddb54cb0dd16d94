"""CPU kernels: numba loops whose order is written out, without fast-math.

Vectors run across independent outputs; no reduction is left to the compiler, and exp and log are built
from IEEE adds and multiplies. So the bits are the same on every x86 machine, whatever its vector width.
"""

from rlsync.kernels.cpu.activation import silu
from rlsync.kernels.cpu.attention import packed_attention, paged_attention
from rlsync.kernels.cpu.gemm import matmul_leaves
from rlsync.kernels.cpu.logprobs import logprobs
from rlsync.kernels.cpu.norm import rms_rstd
from rlsync.kernels.cpu.sampling import draw

__all__ = ["draw", "logprobs", "matmul_leaves", "packed_attention", "paged_attention", "rms_rstd", "silu"]
