"""The tree all-reduce across ranks through peer memory: out = round(tree of the ranks' roots + bias), in one launch.

A rank writes into the buffers of its peers and reads only its own, because a write needs no answer while a read waits
for one. A rank's buffer (symmetric.py) holds flags, two slots of roots for `one_shot`, parts and results for
`two_shot`, and two slots for `low_latency`. In each of these every rank has a piece that only this rank writes. Every
rank launches the same kernels in the same order, in one stream, and with the same number of blocks. Block b of a rank
waits only for block b of the other ranks, and reads only what those blocks have written. `low_latency` follows NCCL's
LL protocol: a 64-bit word holds a number and, in its upper half, the index of the exchange to which it belongs. Both
arrive together, so no flag is needed, which could only be written after all data had arrived.

No data is overwritten that a peer may still read, whatever the sequence of kernels and sizes. The flag of a block is
the number of exchanges that the block has been through; between kernels it is equal for all blocks of a rank. If a peer
has reached exchange e, or if its words of exchange e have arrived, then the peer runs the kernel of e and has finished
all earlier kernels. (A block of `low_latency` without elements waits for no peer, but block 0 waits, and with it the
kernel.)
- A slot is written before exchange e and read after it, until the kernel ends. Slots alternate with e, so the next
  write to the slot comes before exchange e + 2, after this rank has passed exchange e + 1. By then the peer has
  finished the kernel that reads.
- Parts are read between the two exchanges of a `two_shot`. A later kernel writes them again, when all blocks of this
  rank have passed the second exchange, which the blocks of the peer reach after their reads.
- Results are read after the second exchange, until the kernel ends. They are written again after an exchange of a later
  kernel.
Flags only grow, lie in device memory and are never reset, so a CUDA graph that is replayed continues from the last
call.
"""

from __future__ import annotations

import triton
import triton.language as tl

FLAG_BYTES = tl.constexpr(8)


@triton.jit
def _exchange(peers, epoch, RANK: tl.constexpr, RANKS: tl.constexpr):
    """Tell block b of every rank that this block has reached exchange `epoch`, and wait until they all have."""
    ranks = tl.arange(0, RANKS)
    row = tl.program_id(0) * RANKS
    tl.debug_barrier()  # writes and reads of the other threads come before the release
    theirs = tl.load(peers + ranks) + (row + RANK) * FLAG_BYTES
    value = epoch + tl.zeros([RANKS], tl.int64)
    tl.atomic_xchg(theirs.to(tl.pointer_type(tl.int64)), value, sem="release", scope="sys")
    ours = (tl.load(peers + RANK) + (row + ranks) * FLAG_BYTES).to(tl.pointer_type(tl.int64))
    zero = tl.zeros([RANKS], tl.int64)
    while tl.min(tl.atomic_add(ours, zero, sem="acquire", scope="sys"), 0) < epoch:
        pass
    tl.debug_barrier()  # later reads of the other threads come after the acquire


@triton.jit
def _epoch(peers, RANK: tl.constexpr, RANKS: tl.constexpr):
    """The number of exchanges that this block has been through, which is its own flag."""
    flag = tl.load(peers + RANK) + (tl.program_id(0) * RANKS + RANK) * FLAG_BYTES
    return tl.load(flag.to(tl.pointer_type(tl.int64)))


@triton.jit
def _at(peers, peer, offset, DTYPE: tl.constexpr):
    """A pointer to byte `offset`, a multiple of 16, of the buffer of rank `peer`."""
    return tl.multiple_of((tl.load(peers + peer) + offset).to(tl.pointer_type(DTYPE)), 16)


@triton.jit
def _next_slot(peers, slots, slot_bytes, RANK: tl.constexpr, RANKS: tl.constexpr):
    """The index of the next exchange, the offset of its slot, and the size of each rank's piece of the slot."""
    epoch = _epoch(peers, RANK, RANKS) + 1
    return epoch, slots + epoch % 2 * slot_bytes, slot_bytes // RANKS


@triton.jit
def _from_line(piece, at, mask, epoch):
    """The root [TILE] of a peer, as soon as all its words belong to exchange `epoch`."""
    words = tl.multiple_of(piece.to(tl.pointer_type(tl.int64)), 16) + at
    stamp = epoch.to(tl.int32)  # repeats after 2^32 exchanges, which is a week of decoding
    word = tl.load(words, mask=mask, other=0, volatile=True)
    while tl.max((mask & ((word >> 32).to(tl.int32) != stamp)).to(tl.int32), 0) > 0:
        word = tl.load(words, mask=mask, other=0, volatile=True)
    return (word & 0xFFFFFFFF).to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def _tree(root, pieces, piece_bytes, at, within, mask, epoch, FIRST: tl.constexpr, COUNT: tl.constexpr,
          RANK: tl.constexpr, WORDS: tl.constexpr):  # fmt: skip
    """The tree of ranks FIRST .. FIRST + COUNT - 1. `pieces` is where the ranks' pieces begin in this rank's buffer."""
    if COUNT > 1:
        left = _tree(root, pieces, piece_bytes, at, within, mask, epoch, FIRST, COUNT // 2, RANK, WORDS)
        right = _tree(root, pieces, piece_bytes, at, within, mask, epoch, FIRST + COUNT // 2, COUNT // 2, RANK, WORDS)
        return left + right
    elif FIRST == RANK:
        return tl.load(root + at, mask=mask, other=0.0)
    elif WORDS:
        return _from_line(pieces + FIRST * piece_bytes, within, mask, epoch)
    else:
        piece = tl.multiple_of((pieces + FIRST * piece_bytes).to(tl.pointer_type(tl.float32)), 16)
        return tl.load(piece + within, mask=mask, other=0.0, cache_modifier=".cg")


@triton.jit
def _finished(root, pieces, piece_bytes, bias, at, within, mask, n, epoch, DTYPE: tl.constexpr, RANK: tl.constexpr,
              RANKS: tl.constexpr, HAS_BIAS: tl.constexpr, WORDS: tl.constexpr):  # fmt: skip
    """The elements `at` of the result: the tree of all ranks plus the bias, rounded to DTYPE."""
    total = _tree(root, pieces, piece_bytes, at, within, mask, epoch, 0, RANKS, RANK, WORDS)
    if HAS_BIAS:
        total += tl.load(bias + at % n, mask=mask, other=0.0).to(tl.float32)
    return total.to(DTYPE)


@triton.jit
def low_latency(
    root, peers, bias, out, size, n, slots, slot_bytes,
    RANK: tl.constexpr, RANKS: tl.constexpr, TILE: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """Like `one_shot`, for few elements, at most TILE for each block, which are sent in words."""
    epoch, slot, piece_bytes = _next_slot(peers, slots, slot_bytes, RANK, RANKS)
    at = tl.program_id(0) * TILE + tl.arange(0, TILE)
    mask = at < size
    value = tl.load(root + at, mask=mask, other=0.0)
    word = (epoch << 32) + (value.to(tl.int32, bitcast=True).to(tl.int64) & 0xFFFFFFFF)
    for step in tl.static_range(1, RANKS):
        piece = _at(peers, (RANK + step) % RANKS, slot + RANK * piece_bytes, tl.int64)
        tl.store(piece + at, word, mask=mask)
    tl.debug_barrier()  # no store moves past it
    own = tl.load(peers + RANK)
    y = _finished(
        root, own + slot, piece_bytes, bias, at, at, mask, n, epoch, out.dtype.element_ty, RANK, RANKS, HAS_BIAS, True
    )  # fmt: skip
    tl.store(out + at, y, mask=mask)
    tl.debug_barrier()  # all threads have read the flag
    flag = own + (tl.program_id(0) * RANKS + RANK) * FLAG_BYTES
    tl.store(flag.to(tl.pointer_type(tl.int64)), epoch)


@triton.jit
def one_shot(
    root, peers, bias, out, size, n, slots, slot_bytes,
    RANK: tl.constexpr, RANKS: tl.constexpr, TILE: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """Send all roots to every rank. root, out [M, N]; size = M N; peers [RANKS]: addresses of the ranks' buffers."""
    epoch, slot, piece_bytes = _next_slot(peers, slots, slot_bytes, RANK, RANKS)
    first = tl.program_id(0) * TILE
    stride = tl.num_programs(0) * TILE
    for start in range(first, size, stride):
        at = start + tl.arange(0, TILE)
        value = tl.load(root + at, mask=at < size)
        for step in tl.static_range(1, RANKS):  # each rank starts with another peer, which spreads the load on links
            piece = _at(peers, (RANK + step) % RANKS, slot + RANK * piece_bytes, tl.float32)
            tl.store(piece + at, value, mask=at < size)
    _exchange(peers, epoch, RANK, RANKS)
    pieces = tl.load(peers + RANK) + slot
    for start in range(first, size, stride):
        at = start + tl.arange(0, TILE)
        y = _finished(
            root, pieces, piece_bytes, bias, at, at, at < size, n, epoch, out.dtype.element_ty, RANK, RANKS, HAS_BIAS,
            False,
        )  # fmt: skip
        tl.store(out + at, y, mask=at < size)


@triton.jit
def two_shot(
    root, peers, bias, out, size, n, parts, results, region_bytes,
    RANK: tl.constexpr, RANKS: tl.constexpr, TILE: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """Finish one slice of the elements on each rank for all ranks: `share` tiles, which are dealt out to its blocks."""
    DTYPE: tl.constexpr = out.dtype.element_ty
    epoch = _epoch(peers, RANK, RANKS) + 1
    block, blocks = tl.program_id(0), tl.num_programs(0)
    share = tl.cdiv(tl.cdiv(size, TILE), RANKS)
    piece_bytes = region_bytes // RANKS
    for step in tl.static_range(1, RANKS):
        peer = (RANK + step) % RANKS
        for tile in range(block, share, blocks):
            within = tile * TILE + tl.arange(0, TILE)
            at = peer * share * TILE + within
            value = tl.load(root + at, mask=at < size)
            tl.store(_at(peers, peer, parts + RANK * piece_bytes, tl.float32) + within, value, mask=at < size)
    _exchange(peers, epoch, RANK, RANKS)
    own = tl.load(peers + RANK)
    for tile in range(block, share, blocks):
        within = tile * TILE + tl.arange(0, TILE)
        at = RANK * share * TILE + within
        y = _finished(
            root, own + parts, piece_bytes, bias, at, within, at < size, n, epoch, DTYPE, RANK, RANKS, HAS_BIAS, False
        )  # fmt: skip
        for step in tl.static_range(1, RANKS):
            piece = _at(peers, (RANK + step) % RANKS, results + RANK * piece_bytes, DTYPE)
            tl.store(piece + within, y, mask=at < size)
        tl.store(out + at, y, mask=at < size)
    _exchange(peers, epoch + 1, RANK, RANKS)
    for step in tl.static_range(1, RANKS):
        peer = (RANK + step) % RANKS
        for tile in range(block, share, blocks):
            within = tile * TILE + tl.arange(0, TILE)
            at = peer * share * TILE + within
            piece = _at(peers, RANK, results + peer * piece_bytes, DTYPE)
            y = tl.load(piece + within, mask=at < size, cache_modifier=".cg")
            tl.store(out + at, y, mask=at < size)
