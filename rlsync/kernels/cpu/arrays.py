"""PyTorch tensors as NumPy arrays for numba."""

from __future__ import annotations

import numpy as np
import torch


def fp32_array(t: torch.Tensor) -> np.ndarray:
    """The contiguous fp32 values of a tensor, without a copy if it has them already.

    The array is made through DLPack, because `Tensor.numpy()` would mark the storage as not resizable, and FSDP2 frees
    gathered parameters by resizing their storage.
    """
    return np.from_dlpack(t.detach().to(torch.float32).contiguous())
