"""GPU tensors of another process of this host, by CUDA IPC."""

from __future__ import annotations

import base64
from typing import Any

import torch
from torch.multiprocessing.reductions import rebuild_cuda_tensor, reduce_tensor

_DEVICE_ARGUMENT = 6
"""Of rebuild_cuda_tensor, whose first is the class of the tensor and whose last asks to wait for its owner's work."""
_STORAGE_ARGUMENT, _DTYPE_ARGUMENT = 4, 5
_DTYPES = {str(dtype): dtype for dtype in (torch.bfloat16, torch.float32, torch.uint8)}
"""The dtypes of parameters and buffers, by name."""
_BYTES = "base64:"
"""In front of bytes as text."""

Handle = list[Any]
"""The arguments of rebuild_cuda_tensor except for classes, as values that JSON can hold."""


def handle_of(t: torch.Tensor) -> Handle:
    """t [...], dense or not, whose owner keeps it."""
    _, arguments = reduce_tensor(t)
    return [_plain(value) for value in arguments[1:-1]]


def open_handle(handle: Handle, device: torch.device) -> torch.Tensor:
    """The tensor, for work on `device`, wherever its own GPU is; this process need not see that one.

    Raises:
        RuntimeError: the GPUs have no access to each other.
    """
    arguments = [torch.Tensor, *map(_restored, handle), False]
    arguments[_STORAGE_ARGUMENT] = torch.storage.TypedStorage
    arguments[_DTYPE_ARGUMENT] = _DTYPES[arguments[_DTYPE_ARGUMENT]]
    arguments[_DEVICE_ARGUMENT] = device.index
    return rebuild_cuda_tensor(*arguments)


def _plain(value: Any) -> Any:
    match value:
        case bytes():
            return _BYTES + base64.b64encode(value).decode()
        case tuple():  # a size or strides
            return [int(each) for each in value]
        case torch.dtype():
            return str(value)
        case type():
            return None  # the class of the storage, of which there is one
    return value


def _restored(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(_BYTES):
        return base64.b64decode(value.removeprefix(_BYTES))
    return tuple(value) if isinstance(value, list) else value
