"""Every tile of the GEMM's table compiles and fits into shared memory."""

from __future__ import annotations

import importlib

import pytest
import torch
from triton.runtime import driver
from triton.runtime.errors import OutOfResources

from rlsync.kernels.triton.tiles import Form, PersistentTile, block_tile, persistent_tile

matmul = importlib.import_module("rlsync.kernels.triton.matmul")
ROWS = (1, 17, 33, 300)
COLUMNS = (512, 1024, 2048, 4096, 12288)
DEPTHS = (896, 4096)


@pytest.mark.parametrize(("capability", "dtype"), [(89, torch.bfloat16), (89, torch.float32), (90, torch.bfloat16)])
def test_few_rows(gpu, capability, dtype):
    gpu(capability)
    shared = matmul.shared_memory(None)
    shapes = {}
    for leaves in (1, 8, 16):
        for m in ROWS:
            for n in COLUMNS:
                for k in DEPTHS:
                    tile = block_tile(m, n, leaves, k // leaves, dtype.itemsize, shared)
                    # A kernel is compiled for these arguments; with Form.programs it does not depend on the leaves.
                    kind = (tile, leaves == 1 if tile.form is Form.programs else leaves, k // leaves % tile.depth == 0)
                    shapes.setdefault(kind, (m, k, n, leaves, tile))
    for m, k, n, leaves, tile in shapes.values():
        x, w = torch.empty(m, k, dtype=dtype), torch.empty(n, k, dtype=dtype)
        matmul.blockwise(x, w, None, leaves, dtype, tile)


def test_fp32_on_hopper_finds_room(gpu):
    """The shape whose tile for bf16 has more stages than fit in fp32."""
    gpu(90)
    x, w = torch.empty(33, 4096), torch.empty(4096, 4096)
    matmul.matmul(x, w, None, 1, torch.float32)


def test_a_tile_without_room_is_noticed(gpu):
    """The control: a tile of Hopper does not fit on a GPU with less shared memory."""
    tile = block_tile(300, 4096, 1, 4096, 2, 227 << 10)
    gpu(89)
    x, w = torch.empty(300, 4096, dtype=torch.bfloat16), torch.empty(4096, 4096, dtype=torch.bfloat16)
    with pytest.raises(OutOfResources):
        matmul.blockwise(x, w, None, 1, torch.bfloat16, tile)


@pytest.mark.parametrize("leaves", [1, 2, 4, 8, 16])
def test_many_rows(gpu, leaves):
    gpu(90)
    for dtype in (torch.bfloat16, torch.float32):
        wide = dtype == torch.float32
        tiles = {persistent_tile(m, n, leaves, 256, wide) for m in (64, 128, 512, 8192) for n in (2048, 4096, 12288)}
        if leaves == 1 and not wide:
            tiles |= {PersistentTile(192, 32, 4), PersistentTile(128, 16, 6)}
        for tile in tiles - {None}:
            k = leaves * 256
            x, w = torch.empty(300, k, dtype=torch.bfloat16), torch.empty(512, k, dtype=torch.bfloat16)
            bias = None if wide else torch.empty(512, dtype=torch.bfloat16)
            matmul.persistent(x, w, bias, leaves, dtype, tile)


def test_the_driver_is_gone():
    """The other tests leave nothing behind that tests on a GPU would see."""
    assert driver._active is None or not hasattr(driver._active, "_capability")
