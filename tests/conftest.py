"""Shared fixtures."""

from __future__ import annotations

import pytest
import torch

_EMPTY = torch.empty


@pytest.fixture(autouse=True)
def poisoned_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.empty holds NaN (or a huge integer), so that reading what was never written shows."""

    def empty(*args: object, **kwargs: object) -> torch.Tensor:
        t = _EMPTY(*args, **kwargs)
        return t.fill_(float("nan")) if t.is_floating_point() else t

    monkeypatch.setattr(torch, "empty", empty)
