"""Gluon's barrier of a warp group, whose name depends on the release of Triton."""

from __future__ import annotations

try:
    from triton.experimental.gluon.language import thread_barrier
except ImportError:
    from triton.experimental.gluon.language import barrier as thread_barrier

__all__ = ["thread_barrier"]
