"""Shared fixtures."""

from __future__ import annotations

import os

# Tests run in as many processes as there are cores: a thread that waits for another must not keep a core busy. OpenMP
# reads this once, when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

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
