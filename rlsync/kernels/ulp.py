"""Distances of floating-point numbers in units in the last place."""

from __future__ import annotations

import torch


def ulp_distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the distance of bf16 or fp32 values in units in the last place, int64; -0.0 and +0.0 are one apart."""
    return (_ordered(a) - _ordered(b)).abs()


def _ordered(x: torch.Tensor) -> torch.Tensor:
    """Map values to int64 so that order is kept and neighbouring numbers are one apart."""
    narrow = x.dtype == torch.bfloat16
    bits = x.view(torch.int16 if narrow else torch.int32).to(torch.int64)
    return torch.where(bits < 0, -(bits & (0x7FFF if narrow else 0x7FFFFFFF)) - 1, bits)
