"""The GPUs that a benchmark may deal out to its processes."""

from __future__ import annotations

import os

import torch


def visible_gpus() -> list[str]:
    """As CUDA_VISIBLE_DEVICES names them; none on a machine without."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return chosen.split(",") if chosen else [str(index) for index in range(torch.cuda.device_count())]


def seeing(index: int) -> dict[str, str]:
    """The environment of a process that has the GPU `index` of these to itself."""
    return os.environ | {"CUDA_VISIBLE_DEVICES": visible_gpus()[index]}
