"""The number that a reward function returned."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import numpy as np
import torch

SHOWN = 300
"""Characters of a text that a message shows."""


def number(value: Any) -> float:
    """A finite float.

    Raises:
        TypeError, ValueError, OverflowError: it is none; a scalar of numpy or torch is.
    """
    if isinstance(value, np.generic | np.ndarray | torch.Tensor) and value.ndim == 0:
        value = value.item()
    if not isinstance(value, Real):
        raise TypeError(f"it returned {shown(value)} ({type(value).__name__}), want a float")
    result = float(value)
    if not math.isfinite(result):
        raise ValueError(f"it returned {result}, want a finite number")
    return result


def shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text)} characters)"
