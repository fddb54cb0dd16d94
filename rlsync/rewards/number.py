"""Check the number that a reward function returned."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import numpy as np
import torch

SHOWN = 300
"""Most characters of a text that a message shows."""


def number(value: Any) -> float:
    """Return a value as a finite float. Scalars of numpy and torch are numbers.

    Raises:
        TypeError: The value is not a number.
        ValueError: It is NaN or infinite.
        OverflowError: It is too large for a float.
    """
    if isinstance(value, np.generic | np.ndarray | torch.Tensor) and value.ndim == 0:
        value = value.item()
    if not isinstance(value, Real):
        raise TypeError(f"it returned {shown(value)} ({type(value).__name__}), but must return a float")
    result = float(value)
    if not math.isfinite(result):
        raise ValueError(f"it returned {result}, but must return a finite number")
    return result


def shown(value: Any) -> str:
    """Return a value's repr, shortened for a message."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text)} characters)"
