"""Which kernel and tile serve a shape. Frozen per device: every entry gives the same bits, so this is speed alone.

`tests/gpu/test_gemm.py` proves that of every entry; `benchmarks/tiles.py` finds candidates. An unknown device gets the
safe entries.
"""

from __future__ import annotations

import functools
import logging
import sys
from dataclasses import dataclass, replace
from enum import Enum, auto

import torch
from triton.runtime import driver

from rlsync.errors import ConfigError

_FEW_ROWS, _HALF_A_TILE = 32, 64
"""Rows up to which the persistent kernel is never the faster one, and with which one of its two warpgroups is idle."""
_WIDE_HEAD = 1 << 16
"""Columns of a product that fills many waves whatever the tile, as heads do."""
_TOO_FEW_TILES = 40
"""So few tiles of 32 columns leave most multiprocessors idle, and a program per leaf is faster."""
_FEW_WIDE_TILES = 100
_WAVE_COST = {32: 0.64, 64: 1.0, 128: 1.42, 192: 2.3, 256: 2.9}
"""Columns of a persistent tile -> time of one on every multiprocessor, over that of 64; measured on an H100,
192 on an H200."""
_HOPPER_PROCESSORS = 132
_HOPPER = ("H100", "H200", "H800", "GH200")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PersistentTile:
    """For gemm_hopper.py, 192 columns for gemm_hopper_wide.py: 128 rows by `columns`, `depth` of K a stage."""

    columns: int
    depth: int
    stages: int


class Form(Enum):
    """How gemm.py lays the leaves out."""

    programs = auto()
    """A program per leaf, and a combine."""
    side_by_side = auto()
    """All in one program, at once; depth must divide a leaf."""
    in_turn = auto()
    """All in one program, one after another; depth must divide a leaf."""


@dataclass(frozen=True, slots=True)
class BlockTile:
    """For gemm.py."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int
    form: Form


@functools.cache
def is_hopper(index: int) -> bool:
    """Whether the device runs the Hopper kernels; says so once where it is slower than it could be.

    Raises:
        ConfigError: compute capability below 8.0.
    """
    name, capability = torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index)
    if capability < (8, 0):
        raise ConfigError(
            f"{name} has compute capability {capability[0]}.{capability[1]}; kernels=invariant needs 8.0 or more "
            "(bfloat16 tensor cores). Use another GPU, or kernels=native to train without the guarantee."
        )
    if capability == (9, 0) and any(part in name for part in _HOPPER):
        return True
    _log.warning("no tile table for %s: rlsync's safe tiles are exact there, but slow", name)
    return False


def rows_suit_tma(t: torch.Tensor) -> bool:
    """bf16 on a Hopper GPU, rows 16-byte aligned."""
    on_hopper = t.is_cuda and is_hopper(t.device.index)
    return on_hopper and t.dtype == torch.bfloat16 and t.stride(0) % 8 == 0 and t.data_ptr() % 16 == 0


@functools.cache
def multiprocessors(index: int) -> int:
    """Of the GPU `index`."""
    return torch.cuda.get_device_properties(index).multi_processor_count


@functools.cache
def shared_memory(device: torch.device) -> int:
    """Bytes of it that a program may have there; on the CPU, in Triton's interpreter, nothing bounds it."""
    if device.type == "cpu":
        return sys.maxsize
    return int(driver.active.utils.get_device_properties(device.index)["max_shared_mem"])


@functools.lru_cache(maxsize=4096)
def persistent_tile(m: int, n: int, leaves: int, leaf_k: int, wide_output: bool) -> PersistentTile | None:
    """Tile of the persistent kernel, where that is fast and the depth of a stage can divide a leaf.

    Multiprocessors work in waves, so the width is the one whose waves take least; with many rows it is the widest,
    which reads least. `wide_output` is fp32.
    """
    depth = next((d for d in (64, 32, 16) if leaf_k % d == 0), None)
    if depth is None or leaves > 16:
        return None
    rows = ceil_div(m, 128)
    if m <= _FEW_ROWS or (m <= _HALF_A_TILE and not _half_a_tile_suits(n, leaves)):
        return None
    if leaves >= 4 and rows * ceil_div(n, 32) <= _TOO_FEW_TILES:
        return None
    if leaves > 8:
        return PersistentTile(128, depth, 3)
    widths = [width for width in _WAVE_COST if width <= 128 or (leaves == 1 and not wide_output)]
    tiles = {width: rows * ceil_div(n, width) for width in widths}
    columns = min(tiles, key=lambda width: ceil_div(tiles[width], _HOPPER_PROCESSORS) * _WAVE_COST[width])
    if rows >= 8 and tiles.get(256, 0) >= _FEW_WIDE_TILES:
        columns = 256
    return PersistentTile(columns, depth, _stages(columns, leaves, wide_output))


def _half_a_tile_suits(n: int, leaves: int) -> bool:
    """Measured: where 64 rows by 32 columns nearly fill a wave, and in wide heads."""
    nearly_a_wave = _HOPPER_PROCESSORS * 3 // 4 < ceil_div(n, 32) <= _HOPPER_PROCESSORS
    return n > _WIDE_HEAD or (1 < leaves <= 8 and nearly_a_wave)


def _stages(columns: int, leaves: int, wide_output: bool) -> int:
    """As many as fit into shared memory beside the result and the subtrees that wait."""
    if columns == 128:
        return 5 if wide_output or leaves == 8 else 6
    return {32: 9, 64: 6, 192: 4, 256: 3}[columns]


@functools.lru_cache(maxsize=4096)
def block_tile(m: int, n: int, leaves: int, leaf_k: int, itemsize: int, shared: int) -> BlockTile:
    """Tile for few rows, odd shapes or another GPU.

    Args:
        itemsize: bytes of an operand's element.
        shared: the device's `shared_memory`, which bounds how many stages are in flight.
    """
    tile = _wanted_tile(m, n, leaves, leaf_k, itemsize)
    at_once = leaves if tile.form is Form.side_by_side else 1
    stages = 1 + shared // ((tile.rows + tile.columns) * tile.depth * itemsize * at_once)
    if stages < 2:
        return BlockTile(tile.rows, 64, 64, 4, 3, Form.programs)
    return tile if tile.stages <= stages else replace(tile, stages=stages)


def _wanted_tile(m: int, n: int, leaves: int, leaf_k: int, itemsize: int) -> BlockTile:
    """Where there is as much shared memory as on Hopper."""
    rows = 16 if m <= 16 else 64
    if leaves > 1 and n >= 4096:  # enough columns for one program to have all leaves
        if m <= 16 and leaves == 2 and leaf_k % 128 == 0:
            return BlockTile(16, 32, 128, 4, 6, Form.in_turn)
        if 16 < m <= 32 and leaf_k % 128 == 0:
            return BlockTile(32, 32, 128, 4, 6, Form.in_turn)
        if m > 32 and leaf_k % 256 == 0 and itemsize == 2:  # in fp32 it has room for its stages on Hopper alone
            return BlockTile(64, 32, 256, 4, 3, Form.in_turn)
    if leaves <= 2:
        if n > 32 * _HOPPER_PROCESSORS:  # narrower ones would take a second wave
            return BlockTile(rows, 64, 128, 4, 4, Form.programs)
        if rows == 16 and leaf_k % 256 == 0:
            return BlockTile(16, 32, 256, 4, 4, Form.programs)
        return BlockTile(rows, 32 if n > 2048 else 16, 128, 4, 6 if n > 2048 else 5, Form.programs)
    if m <= 16 and leaf_k % 64 == 0:
        return BlockTile(rows, 16, 64, 8, 3, Form.side_by_side)
    if leaves == 8 and 1024 < n < 4096 and leaf_k in (64, 128, 192, 256) and itemsize == 2:
        return BlockTile(rows, 16, 64, 8, 3, Form.side_by_side)
    return BlockTile(rows, 128 if n >= 2048 else 64, 64, 4, 4, Form.programs)


ONE_SHOT_BYTES = {2: 3 << 20, 4: 512 << 10, 8: 256 << 10}
"""Ranks that share memory -> the largest fp32 root that all of them get whole; a larger one is cut in slices.

Measured for two and four; for eight from the bytes that a link carries (one shot sends 4 (n - 1) an element, two
6 (n - 1) / n) and the few microseconds of one exchange more.
"""


WORDS_BYTES = {2: 512 << 10, 4: 256 << 10, 8: 128 << 10}
"""The same, of a root that goes in words, which are twice as long."""


def word_tile(elements: int, blocks: int) -> int:
    """Elements of a block that goes in words: all that it has."""
    return max(512, _share(elements, blocks))


def element_tile(elements: int, blocks: int) -> int:
    """Elements that a block of the all-reduce moves at a time: one turn for all of them, within bounds."""
    return min(8192, max(2048, _share(elements, blocks)))


def _share(elements: int, blocks: int) -> int:
    """A block's, rounded up to a power of two."""
    return power_of_two(ceil_div(elements, blocks))


def ceil_div(a: int, b: int) -> int:
    """As triton.cdiv, which takes 2 us of the host."""
    return -(-a // b)


def power_of_two(n: int) -> int:
    """The next one from n >= 1 on, as triton.next_power_of_2, which takes as long."""
    return 1 << (n - 1).bit_length()
