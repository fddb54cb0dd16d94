"""torch tensors as numpy arrays for numba."""

from __future__ import annotations

import numpy as np
import torch


def fp32_array(t: torch.Tensor) -> np.ndarray:
    """Contiguous fp32 values of t, without a copy where they are that already.

    Through DLPack: `Tensor.numpy()` would mark the storage as not resizable, and FSDP2 frees gathered parameters by
    resizing their storage.
    """
    return np.from_dlpack(t.detach().to(torch.float32).contiguous())
