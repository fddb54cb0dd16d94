"""Work distribution and loads of attention_hopper.py: the queries of a block, and the ring of its keys and values.

The queries are the last `count` tokens of a sequence of `length` tokens. Load 2n of a program is the keys of its n-th
tile, and load 2n + 1 the values. Load i lies in slot i % SLOTS of a ring in shared memory. All warpgroups must release
a slot, even if one of them does not need the tile.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma

ROWS = gl.constexpr(64)
"""Number of queries of a warpgroup, and number of keys of a tile."""


@gluon.jit
def item_of(index, pack, BLOCK: gl.constexpr, PAGED: gl.constexpr):
    """A block's head and sequence, the sequence's first row, count and length, and the block's first row in the count.

    The last rows of a sequence come first.
    """
    starts, lengths, sequences, rounds, heads, blocks = pack[0], pack[1], pack[2], pack[3], pack[4], pack[5]
    block = blocks - 1 - index // heads
    low = 0
    high = sequences
    for _ in range(rounds):  # the blocks of sequence s begin at block starts[s] // BLOCK + s
        middle = (low + high) // 2
        before = gl.load(starts + middle) // BLOCK + middle <= block
        low = gl.where(before, middle, low)
        high = gl.where(before, high, middle)
    begin = gl.load(starts + low)
    count = gl.load(starts + low + 1) - begin
    length = count
    if PAGED:
        length = gl.load(lengths + low)
    return index % heads, low, begin, count, length, (block - begin // BLOCK - low) * BLOCK


@gluon.jit
def tiles_of(first_row, rows: gl.constexpr, count, length, window):
    """The first tile that `rows` rows from first_row on see, and the one after the last; no tile past the count."""
    first = length - count + first_row
    low = gl.maximum(0, first - window + 1) // ROWS
    high = gl.cdiv(gl.minimum(length, first + rows), ROWS)
    return low, gl.where(first_row < count, high, low)


@gluon.jit
def _produce_queries(q_desc, queries, head, row, phase):
    """Load a tile of queries for each warpgroup, from `row` on. Rows past the block hold arbitrary values."""
    tiles, full, empty = queries
    D: gl.constexpr = tiles.shape[2]
    GROUPS: gl.constexpr = tiles.shape[0]
    for part in gl.static_range(GROUPS):
        mbarrier.wait(empty.index(part), phase ^ 1)
        mbarrier.expect(full.index(part), q_desc.block_type.nbytes)
        tma.async_copy_global_to_shared(q_desc, [row + part * ROWS, head * D], full.index(part), tiles.index(part))


@gluon.jit
def _produce_rows(q_desc, queries, loads, pack, BLOCK: gl.constexpr):
    """Load keys and values that lie at the same rows as the queries."""
    k_desc, v_desc, ring, full, empty, group = loads
    SLOTS: gl.constexpr = ring.shape[0]
    D: gl.constexpr = ring.shape[2]
    load = 0
    phase = 0
    for index in range(gl.program_id(0), pack[4] * pack[5], gl.num_programs(0)):
        head, _seq, begin, count, length, first_row = item_of(index, pack, BLOCK, False)
        _produce_queries(q_desc, queries, head, begin + first_row, phase)
        phase ^= 1
        low, high = tiles_of(first_row, BLOCK, count, length, pack[6])
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
def _page_rows(table, tile, kv_head, kv_heads, page, last_page, PIECE: gl.constexpr):
    """The row of the cache, as a matrix, at which each piece of a tile begins; past the sequence any valid row."""
    rows = ()
    for piece in gl.static_range(ROWS // PIECE):
        key = tile * ROWS + piece * PIECE
        block = gl.load(table + gl.minimum(key // page, last_page))
        rows = rows + ((block * kv_heads + kv_head) * page + key % page,)  # noqa: RUF005
    return rows


@gluon.jit
def _produce_pages(q_desc, queries, loads, pack, BLOCK: gl.constexpr):
    """Load keys and values from the pages of a cache, whose descriptor has blocks of PIECE tokens by WIDE channels."""
    desc, table, pages, kv_heads, page, ring, full, empty, group = loads
    SLOTS: gl.constexpr = ring.shape[0]
    D: gl.constexpr = ring.shape[2]
    PIECE: gl.constexpr = desc.block_shape[0]
    WIDE: gl.constexpr = desc.block_shape[1]
    PIECES: gl.constexpr = ROWS // PIECE
    PARTS: gl.constexpr = D // WIDE
    # A slot holds WIDE channels of all rows, then the next WIDE channels, and so on: PARTS * PIECES contiguous pieces.
    pieces = ring._reinterpret(desc.dtype, [SLOTS * PARTS * PIECES, PIECE, WIDE], desc.layout)
    load = 0
    phase = 0
    for index in range(gl.program_id(0), pack[4] * pack[5], gl.num_programs(0)):
        head, seq, begin, count, length, first_row = item_of(index, pack, BLOCK, True)
        _produce_queries(q_desc, queries, head, begin + first_row, phase)
        phase ^= 1
        low, high = tiles_of(first_row, BLOCK, count, length, pack[6])
        own = table + seq * pages
        last_page = (length - 1) // page
        rows = _page_rows(own, low, head // group, kv_heads, page, last_page, PIECE)
        for tile in range(low, high):
            next_rows = _page_rows(own, tile + 1, head // group, kv_heads, page, last_page, PIECE)  # read in advance
            for which in gl.static_range(2):
                slot = load % SLOTS
                mbarrier.wait(empty.index(slot), load // SLOTS & 1 ^ 1)
                mbarrier.expect(full.index(slot), ROWS * D * 2)
                for part in gl.static_range(PARTS):
                    for piece in gl.static_range(PIECES):
                        to = pieces.index((slot * PARTS + part) * PIECES + piece)
                        at = [rows[piece], which * D + part * WIDE]
                        tma.async_copy_global_to_shared(desc, at, full.index(slot), to)
                load += 1
            rows = next_rows


@gluon.jit
def produce(q_desc, queries, loads, pack, BLOCK: gl.constexpr, PAGED: gl.constexpr):
    """Load queries, keys and values for all blocks of a program; runs in the producer warp."""
    if PAGED:
        _produce_pages(q_desc, queries, loads, pack, BLOCK)
    else:
        _produce_rows(q_desc, queries, loads, pack, BLOCK)


@gluon.jit
def wait_for(full, load):
    """Wait for a load, and return its slot."""
    SLOTS: gl.constexpr = full.shape[0]
    mbarrier.wait(full.index(load % SLOTS), load // SLOTS & 1)
    return load % SLOTS


@gluon.jit
def skip(full, empty, load, tiles):
    """Release the slots of tiles that a warpgroup does not need, as they arrive."""
    for i in range(load, load + 2 * tiles):
        mbarrier.arrive(empty.index(wait_for(full, i)))
