"""GPU tensors of another process of this host, by CUDA IPC."""

from __future__ import annotations

from typing import Any

import torch
from torch.multiprocessing.reductions import rebuild_cuda_tensor, reduce_tensor

_DEVICE_ARGUMENT = 6
"""Of rebuild_cuda_tensor, whose first is the class of the tensor and whose last asks to wait for its owner's work."""

Handle = tuple[Any, ...]
"""Of a tensor; it pickles."""


def handle_of(t: torch.Tensor) -> Handle:
    """t [...], dense or not, whose owner keeps it."""
    _, arguments = reduce_tensor(t)
    return tuple(arguments[1:-1])


def open_handle(handle: Handle, device: torch.device) -> torch.Tensor:
    """The tensor, for work on `device`, wherever its own GPU is; this process need not see that one.

    Raises:
        RuntimeError: the GPUs have no access to each other.
    """
    arguments = [torch.Tensor, *handle, False]
    arguments[_DEVICE_ARGUMENT] = device.index
    return rebuild_cuda_tensor(*arguments)
