"""The table of kernels and tiles by shape, fixed for each kind of GPU. Every entry gives the same bits.

The choice therefore changes the speed only. `tests/gpu/test_gemm.py` proves this for every entry, and
`benchmarks/tiles.py` measures candidates. A kind of GPU that is not in the table uses the safe entries.
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
"""Number of rows up to which the persistent kernel is never faster, and number up to which one of its two warpgroups is
idle."""
_WIDE_HEAD = 1 << 16
"""Number of columns above which a product, such as that of an LM head, fills many waves with every tile."""
_TOO_FEW_TILES = 40
"""With at most this many tiles of 32 columns most multiprocessors are idle, and a program for each leaf is faster."""
_FEW_WIDE_TILES = 100
"""With at least this many tiles of 256 columns, and at least 8 rows of tiles, the widest tile is used."""
_WAVE_COST = {32: 0.64, 64: 1.0, 128: 1.42, 192: 2.3, 256: 2.9}
"""For each width of a persistent tile, the time of a wave (one tile on every multiprocessor) relative to width 64;
measured on an H100, width 192 on an H200."""
_HOPPER_PROCESSORS = 132
"""Number of multiprocessors of an H100 or H200."""
_HOPPER = ("H100", "H200", "H800", "GH200")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PersistentTile:
    """A tile of 128 rows for gemm_hopper.py, or with 192 columns for gemm_hopper_wide.py."""

    columns: int
    depth: int
    """Size of a stage in K."""
    stages: int
    """Number of stages in flight."""


class Form(Enum):
    """How the programs of gemm.py compute the leaves."""

    programs = auto()
    """Each leaf has a program of its own, and a combine follows."""
    side_by_side = auto()
    """A program computes all leaves at once; the depth must divide a leaf."""
    in_turn = auto()
    """A program computes one leaf after another; the depth must divide a leaf."""


@dataclass(frozen=True, slots=True)
class BlockTile:
    """A tile for gemm.py."""

    rows: int
    columns: int
    depth: int
    """Size of a stage in K."""
    warps: int
    stages: int
    """Number of stages in flight."""
    form: Form


@functools.cache
def is_hopper(index: int) -> bool:
    """Whether the GPU `index` runs the Hopper kernels. If it does not, a warning says once that it is slower.

    Raises:
        ConfigError: the GPU has a compute capability below 8.0.
    """
    name, capability = torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index)
    if capability < (8, 0):
        raise ConfigError(
            f"{name} has compute capability {capability[0]}.{capability[1]}; kernels=invariant needs 8.0 or more "
            "(bfloat16 tensor cores). Use another GPU, or kernels=native to train without the guarantee."
        )
    if capability == (9, 0) and any(part in name for part in _HOPPER):
        return True
    _log.warning("rlsync has no tuned tiles for %s and uses its safe tiles, which are exact but slower", name)
    return False


def rows_suit_tma(t: torch.Tensor) -> bool:
    """Whether TMA can move the rows of a tensor: it is bf16 on a Hopper GPU, and its rows are 16-byte aligned."""
    on_hopper = t.is_cuda and is_hopper(t.device.index)
    return on_hopper and t.dtype == torch.bfloat16 and t.stride(0) % 8 == 0 and t.data_ptr() % 16 == 0


@functools.cache
def multiprocessors(index: int) -> int:
    """The number of multiprocessors of the GPU `index`."""
    return torch.cuda.get_device_properties(index).multi_processor_count


@functools.cache
def shared_memory(device: torch.device) -> int:
    """The shared memory of a program in bytes; without a bound on the CPU, for Triton's interpreter."""
    if device.type == "cpu":
        return sys.maxsize
    return int(driver.active.utils.get_device_properties(device.index)["max_shared_mem"])


@functools.lru_cache(maxsize=4096)
def persistent_tile(m: int, n: int, leaves: int, leaf_k: int, wide_output: bool) -> PersistentTile | None:
    """The tile of the persistent kernel; None if that kernel is slower or the depth of a stage cannot divide a leaf.

    Multiprocessors work in waves, so the width with the shortest time of all waves is used. With many rows it is the
    widest one, which reads the least memory.

    Args:
        m: number of rows.
        n: number of columns of the result.
        leaves: number of leaves.
        leaf_k: size of a leaf in K.
        wide_output: the result is fp32.
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
    """Whether the persistent kernel is faster for 33 to 64 rows.

    Measurements show that it is if tiles of 32 columns nearly fill a wave, and for wide heads.
    """
    nearly_a_wave = _HOPPER_PROCESSORS * 3 // 4 < ceil_div(n, 32) <= _HOPPER_PROCESSORS
    return n > _WIDE_HEAD or (1 < leaves <= 8 and nearly_a_wave)


def _stages(columns: int, leaves: int, wide_output: bool) -> int:
    """The number of stages that fit into shared memory besides the result and the waiting subtrees."""
    if columns == 128:
        return 5 if wide_output or leaves == 8 else 6
    return {32: 9, 64: 6, 192: 4, 256: 3}[columns]


@functools.lru_cache(maxsize=4096)
def block_tile(m: int, n: int, leaves: int, leaf_k: int, itemsize: int, shared: int) -> BlockTile:
    """The tile of gemm.py for few rows, odd shapes and GPUs other than Hopper.

    Args:
        m, n, leaves, leaf_k: as in `persistent_tile`.
        itemsize: size of an operand's element in bytes.
        shared: the device's `shared_memory`, which limits the number of stages.
    """
    tile = _wanted_tile(m, n, leaves, leaf_k, itemsize)
    at_once = leaves if tile.form is Form.side_by_side else 1
    stages = 1 + shared // ((tile.rows + tile.columns) * tile.depth * itemsize * at_once)
    if stages < 2:
        return BlockTile(tile.rows, 64, 64, 4, 3, Form.programs)
    return tile if tile.stages <= stages else replace(tile, stages=stages)


def _wanted_tile(m: int, n: int, leaves: int, leaf_k: int, itemsize: int) -> BlockTile:
    """The tile for a GPU with as much shared memory as Hopper."""
    rows = 16 if m <= 16 else 64
    if leaves > 1 and n >= 4096:  # there are enough columns to let one program compute all leaves
        if m <= 16 and leaves == 2 and leaf_k % 128 == 0:
            return BlockTile(16, 32, 128, 4, 6, Form.in_turn)
        if 16 < m <= 32 and leaf_k % 128 == 0:
            return BlockTile(32, 32, 128, 4, 6, Form.in_turn)
        if m > 32 and leaf_k % 256 == 0 and itemsize == 2:  # in fp32 its stages fit only on Hopper
            return BlockTile(64, 32, 256, 4, 3, Form.in_turn)
    if leaves <= 2:
        if n > 32 * _HOPPER_PROCESSORS:  # narrower tiles would need a second wave
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
"""For each number of ranks, the largest fp32 root in bytes that is sent whole to every rank; a larger one is cut into
slices.

The values for two and four ranks are measured. The value for eight is derived from the bytes that a link carries (for
each element one-shot sends 4 (n - 1) bytes and two-shot 6 (n - 1) / n) and the few microseconds of a second exchange.
"""


LOW_LATENCY_BYTES = {2: 512 << 10, 4: 256 << 10, 8: 128 << 10}
"""For each number of ranks, the largest fp32 root in bytes that is sent in words, which take twice as many bytes."""


def low_latency_tile(elements: int, blocks: int) -> int:
    """Number of elements of a block that sends words; a block sends all its elements at once."""
    return max(512, _share(elements, blocks))


def element_tile(elements: int, blocks: int) -> int:
    """Number of elements that a block of the all-reduce moves at a time: its whole share, within bounds."""
    return min(8192, max(2048, _share(elements, blocks)))


def _share(elements: int, blocks: int) -> int:
    """Number of elements of a block, rounded up to a power of two."""
    return power_of_two(ceil_div(elements, blocks))


def ceil_div(a: int, b: int) -> int:
    """The quotient a / b, rounded up; triton.cdiv takes 2 us on the host."""
    return -(-a // b)


def power_of_two(n: int) -> int:
    """The smallest power of two that is at least n, for n >= 1; triton.next_power_of_2 takes 2 us too."""
    return 1 << (n - 1).bit_length()
