"""Sharing GPU tensors between processes of one host by CUDA IPC."""

from __future__ import annotations

import base64
from typing import Any

import torch
from torch.multiprocessing.reductions import rebuild_cuda_tensor, reduce_tensor

_DEVICE_ARGUMENT = 6
"""Index of the device among the arguments of rebuild_cuda_tensor. The first argument is the class of the tensor, and
the last one says whether to wait for the work of the owner."""
_STORAGE_ARGUMENT, _DTYPE_ARGUMENT = 4, 5
_DTYPES = {str(dtype): dtype for dtype in (torch.bfloat16, torch.float32, torch.uint8)}
"""The dtypes of parameters and buffers, by name."""
_BYTES = "base64:"
"""Prefix of bytes that are encoded as text."""

Handle = list[Any]
"""The arguments of rebuild_cuda_tensor, as values that JSON can hold; the classes among them are left out."""


def handle_of(t: torch.Tensor) -> Handle:
    """The handle of a GPU tensor, which this process must keep as long as others use it."""
    _, arguments = reduce_tensor(t)
    return [_plain(value) for value in arguments[1:-1]]


def open_handle(handle: Handle, device: torch.device) -> torch.Tensor:
    """Open a tensor of another process for work on `device`.

    The tensor may lie on another GPU, also on one that is not visible to this process.

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
        case tuple():  # sizes or strides
            return [int(each) for each in value]
        case torch.dtype():
            return str(value)
        case type():
            return None  # the class of the storage, which is always TypedStorage
    return value


def _restored(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(_BYTES):
        return base64.b64decode(value.removeprefix(_BYTES))
    return tuple(value) if isinstance(value, list) else value
