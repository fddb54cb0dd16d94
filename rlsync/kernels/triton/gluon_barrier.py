"""Barriers of Gluon kernels: for a warpgroup, whose name depends on Triton's version, and for a ring of stages."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier

try:
    from triton.experimental.gluon.language import thread_barrier
except ImportError:
    from triton.experimental.gluon.language import barrier as thread_barrier

__all__ = ["stage_barriers", "thread_barrier"]


@gluon.jit
def stage_barriers(STAGES: gl.constexpr, READERS: gl.constexpr):
    """The barriers of a ring: full [STAGES, 1], on which one producer arrives, and empty [STAGES, 1] for READERS."""
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(STAGES):
        mbarrier.init(full.index(i), count=1)
        mbarrier.init(empty.index(i), count=READERS)
    return full, empty
