"""Compiles GPU kernels without a GPU: Triton gets a driver with the properties of a GPU that launches nothing."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

SHARED_KIB = {89: 99, 90: 227}
"""The shared memory of a program for each compute capability, from CUDA's programming guide."""
_PROCESSORS = 132


class Launcher:
    def __init__(self, *_: Any) -> None:
        self.launch_cooperative_grid = False

    def __call__(self, *_: Any, **__: Any) -> None:
        pass


class Compiling:
    """The part of a driver that Triton needs besides launches; the number of its device is the compute capability."""

    launcher_cls = Launcher

    def __init__(self, capability: int, shared: int) -> None:
        self._capability, self._shared = capability, shared
        self.utils = self

    def load_binary(self, *_: Any) -> tuple[int, int, int, int, int]:
        """Module, function, registers, spills and the largest number of threads."""
        return 0, 0, 0, 0, 1024

    def get_device_properties(self, _: int) -> dict[str, int]:
        return {"max_shared_mem": self._shared, "multiprocessor_count": _PROCESSORS, "warpSize": 32}

    def fill_tma_descriptor_tiled(self, *_: Any) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self._capability, 32)

    def get_current_device(self) -> int:
        return self._capability

    def get_current_stream(self, _: int) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")


@pytest.fixture
def gpu(monkeypatch):
    """A function that makes tensors on the CPU pass for tensors on a GPU of some compute capability."""

    def become(capability: int) -> None:
        compiling = Compiling(capability, SHARED_KIB[capability] << 10)
        monkeypatch.setattr(driver, "_active", compiling)
        told = {
            "multiprocessors": lambda index: _PROCESSORS,
            "shared_memory": lambda device: SHARED_KIB[capability] << 10,
            "rows_suit_tma": lambda t: capability == 90 and t.dtype == torch.bfloat16 and t.stride(0) % 8 == 0,
        }
        for module in ("matmul", "attention_launch", "symmetric"):
            for name, function in told.items():
                there = importlib.import_module(f"rlsync.kernels.triton.{module}")
                if hasattr(there, name):
                    monkeypatch.setattr(there, name, function)

    return become
