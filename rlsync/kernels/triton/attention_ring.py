"""Which queries a block of attention_hopper.py works on, and the ring of shared memory its keys and values pass.

Load 2n of a program is the keys of its n-th tile, load 2n + 1 the values. Load i lies in slot i % SLOTS of the ring;
all warpgroups must hand a slot back, also of a tile that one of them does not need.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma

ROWS = gl.constexpr(64)
"""Queries of one warpgroup; as many as keys of a tile, so only its last tile is cut by causality."""


@gluon.jit
def item_of(index, starts, sequences, rounds, heads, blocks, BLOCK: gl.constexpr):
    """Head, begin and tokens of the sequence, and first row in it of a block of BLOCK rows; late rows go first."""
    block = blocks - 1 - index // heads
    low = 0
    high = sequences
    for _ in range(rounds):  # sequence s owns the blocks from starts[s] // BLOCK + s on
        middle = (low + high) // 2
        before = gl.load(starts + middle) // BLOCK + middle <= block
        low = gl.where(before, middle, low)
        high = gl.where(before, high, middle)
    begin = gl.load(starts + low)
    count = gl.load(starts + low + 1) - begin
    return index % heads, begin, count, (block - begin // BLOCK - low) * BLOCK


@gluon.jit
def tiles_of(first_row, count, window, BLOCK: gl.constexpr):
    """First tile of a block and the one after its last; none for rows past the sequence."""
    low = gl.maximum(0, first_row - window + 1) // ROWS
    high = gl.cdiv(gl.minimum(count, first_row + BLOCK), ROWS)
    return low, gl.where(first_row < count, high, low)


@gluon.jit
def produce(loads, BLOCK: gl.constexpr):
    k_desc, v_desc, ring, full, empty, pack, group = loads
    starts, sequences, rounds, heads, blocks, window = pack
    SLOTS: gl.constexpr = ring.shape[0]
    D: gl.constexpr = ring.shape[2]
    load = 0
    for index in range(gl.program_id(0), heads * blocks, gl.num_programs(0)):
        head, begin, count, first_row = item_of(index, starts, sequences, rounds, heads, blocks, BLOCK)
        low, high = tiles_of(first_row, count, window, BLOCK)
        for tile in range(low, high):
            at = [begin + tile * ROWS, head // group * D]
            for which in gl.static_range(2):
                slot = load % SLOTS
                mbarrier.wait(empty.index(slot), load // SLOTS & 1 ^ 1)
                mbarrier.expect(full.index(slot), k_desc.block_type.nbytes)
                if which == 0:
                    tma.async_copy_global_to_shared(k_desc, at, full.index(slot), ring.index(slot))
                else:
                    tma.async_copy_global_to_shared(v_desc, at, full.index(slot), ring.index(slot))
                load += 1


@gluon.jit
def wait_for(full, load):
    """The slot of a load, which has arrived."""
    SLOTS: gl.constexpr = full.shape[0]
    mbarrier.wait(full.index(load % SLOTS), load // SLOTS & 1)
    return load % SLOTS


@gluon.jit
def skip(full, empty, load, tiles):
    for i in range(load, load + 2 * tiles):
        mbarrier.arrive(empty.index(wait_for(full, i)))
