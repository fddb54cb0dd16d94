"""Descriptors of matrices whose tiles the Hopper kernels move by TMA."""

from __future__ import annotations

import functools

import torch
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

_TYPES = {torch.bfloat16: gl.bfloat16, torch.float32: gl.float32}


def descriptor(t: torch.Tensor, rows: int, columns: int) -> TensorDescriptor:
    """The descriptor, with tiles [rows, columns], of a matrix t [M, N] whose rows are dense and 16-byte aligned."""
    return TensorDescriptor(t, t.shape, t.stride(), [rows, columns], _layout(rows, columns, t.dtype))


@functools.cache  # making a layout takes longer than a launch
def _layout(rows: int, columns: int, dtype: torch.dtype) -> gl.NVMMASharedLayout:
    return gl.NVMMASharedLayout.get_default_for([rows, columns], _TYPES[dtype])
