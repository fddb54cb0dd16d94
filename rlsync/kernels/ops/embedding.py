"""The token embedding."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def embedding(ids: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """The rows `ids` [...] of w [V, K]. -0.0 becomes +0.0, as in the sum over vocabulary shards with TP."""
    return F.embedding(ids, w) + 0.0
