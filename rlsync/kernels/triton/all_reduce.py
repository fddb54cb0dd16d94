"""The tree across ranks through peer memory: out = round(tree of the ranks' roots + bias), a kernel launch a call.

A rank writes into the others' buffers and reads its own alone: a write to a peer needs no answer, a read waits for one.
A rank's buffer (symmetric.py) holds flags, two slots of roots for `one_shot`, parts and results for `two_shot`, and two
slots of words for `in_words`; in each, every rank has a piece that it alone writes. Every rank launches the same
kernels in the same order, in one stream, always with as many blocks; block b of a rank waits for block b of the others
alone, and reads only what those wrote. A word is a number and, above it, the exchange that it belongs to: whoever sees
it has both, so no flag follows, which would wait until all before it has arrived.

Why nothing is overwritten that a peer still reads, whatever the mix of kernels and sizes: a block's flag value is the
number of exchanges that it has been through, which all blocks of a rank share between kernels. A peer in exchange e, or
whose words of e have come, is in the kernel of e, and so has ended all earlier kernels. (A block of `in_words` without
elements waits for nobody, but block 0 does, and so the kernel.)
- A slot is written before exchange e and read after it, until that kernel ends. Slots alternate with e, so the next
  write comes before exchange e + 2 at the earliest, when this rank has passed e + 1: the peer's reads have ended.
- Parts are read between the two exchanges of a `two_shot`. They are written again by a later kernel, and so after all
  blocks of this one have passed the second: the peer's have come to it.
- Results are read after the second, until the kernel ends, and written next after an exchange of a later kernel.
Flags only grow, live in device memory and need no reset: a replayed CUDA graph goes on where the last call ended.
"""

from __future__ import annotations

import triton
import triton.language as tl

FLAG_BYTES = tl.constexpr(8)


@triton.jit
def _exchange(peers, epoch, RANK: tl.constexpr, RANKS: tl.constexpr):
    """Tell block b of every rank that this one has come to exchange `epoch`, wait until they all have."""
    ranks = tl.arange(0, RANKS)
    row = tl.program_id(0) * RANKS
    tl.debug_barrier()  # what the other threads have written and read comes before the release
    theirs = tl.load(peers + ranks) + (row + RANK) * FLAG_BYTES
    value = epoch + tl.zeros([RANKS], tl.int64)
    tl.atomic_xchg(theirs.to(tl.pointer_type(tl.int64)), value, sem="release", scope="sys")
    ours = (tl.load(peers + RANK) + (row + ranks) * FLAG_BYTES).to(tl.pointer_type(tl.int64))
    zero = tl.zeros([RANKS], tl.int64)
    while tl.min(tl.atomic_add(ours, zero, sem="acquire", scope="sys"), 0) < epoch:
        pass
    tl.debug_barrier()  # what the other threads read comes after the acquire


@triton.jit
def _epoch(peers, RANK: tl.constexpr, RANKS: tl.constexpr):
    """Exchanges that this block has been through: what it last told itself."""
    flag = tl.load(peers + RANK) + (tl.program_id(0) * RANKS + RANK) * FLAG_BYTES
    return tl.load(flag.to(tl.pointer_type(tl.int64)))


@triton.jit
def _at(peers, peer, offset, DTYPE: tl.constexpr):
    """Pointer to byte `offset`, a multiple of 16, of a rank's buffer."""
    return tl.multiple_of((tl.load(peers + peer) + offset).to(tl.pointer_type(DTYPE)), 16)


@triton.jit
def _next_slot(peers, slots, slot_bytes, RANK: tl.constexpr, RANKS: tl.constexpr):
    """The exchange to come, where its slot begins, and how much of it a rank has."""
    epoch = _epoch(peers, RANK, RANKS) + 1
    return epoch, slots + epoch % 2 * slot_bytes, slot_bytes // RANKS


@triton.jit
def _from_words(piece, at, mask, epoch):
    """Root [TILE] of a peer, once all its words are those of exchange `epoch`."""
    words = tl.multiple_of(piece.to(tl.pointer_type(tl.int64)), 16) + at
    stamp = epoch.to(tl.int32)  # it comes again after 2^32 exchanges: a week of decoding
    word = tl.load(words, mask=mask, other=0, volatile=True)
    while tl.max((mask & ((word >> 32).to(tl.int32) != stamp)).to(tl.int32), 0) > 0:
        word = tl.load(words, mask=mask, other=0, volatile=True)
    return (word & 0xFFFFFFFF).to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def _tree(root, pieces, piece_bytes, at, within, mask, epoch, FIRST: tl.constexpr, COUNT: tl.constexpr,
          RANK: tl.constexpr, WORDS: tl.constexpr):  # fmt: skip
    """Tree of ranks FIRST .. FIRST + COUNT - 1; `pieces`: where in this rank's buffer the ranks have written theirs."""
    if COUNT > 1:
        left = _tree(root, pieces, piece_bytes, at, within, mask, epoch, FIRST, COUNT // 2, RANK, WORDS)
        right = _tree(root, pieces, piece_bytes, at, within, mask, epoch, FIRST + COUNT // 2, COUNT // 2, RANK, WORDS)
        return left + right
    elif FIRST == RANK:
        return tl.load(root + at, mask=mask, other=0.0)
    elif WORDS:
        return _from_words(pieces + FIRST * piece_bytes, within, mask, epoch)
    else:
        piece = tl.multiple_of((pieces + FIRST * piece_bytes).to(tl.pointer_type(tl.float32)), 16)
        return tl.load(piece + within, mask=mask, other=0.0, cache_modifier=".cg")


@triton.jit
def _finished(root, pieces, piece_bytes, bias, at, within, mask, n, epoch, DTYPE: tl.constexpr, RANK: tl.constexpr,
              RANKS: tl.constexpr, HAS_BIAS: tl.constexpr, WORDS: tl.constexpr):  # fmt: skip
    total = _tree(root, pieces, piece_bytes, at, within, mask, epoch, 0, RANKS, RANK, WORDS)
    if HAS_BIAS:
        total += tl.load(bias + at % n, mask=mask, other=0.0).to(tl.float32)
    return total.to(DTYPE)


@triton.jit
def in_words(
    root, peers, bias, out, size, n, slots, slot_bytes,
    RANK: tl.constexpr, RANKS: tl.constexpr, TILE: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """As `one_shot`, of few elements: at most TILE for a block."""
    epoch, slot, piece_bytes = _next_slot(peers, slots, slot_bytes, RANK, RANKS)
    at = tl.program_id(0) * TILE + tl.arange(0, TILE)
    mask = at < size
    value = tl.load(root + at, mask=mask, other=0.0)
    word = (epoch << 32) + (value.to(tl.int32, bitcast=True).to(tl.int64) & 0xFFFFFFFF)
    for step in tl.static_range(1, RANKS):
        piece = _at(peers, (RANK + step) % RANKS, slot + RANK * piece_bytes, tl.int64)
        tl.store(piece + at, word, mask=mask)
    tl.debug_barrier()  # which no store moves past
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
    """Every rank gets all roots. root, out [M, N], size = M N; peers [RANKS]: addresses of the ranks' buffers."""
    epoch, slot, piece_bytes = _next_slot(peers, slots, slot_bytes, RANK, RANKS)
    first = tl.program_id(0) * TILE
    stride = tl.num_programs(0) * TILE
    for start in range(first, size, stride):
        at = start + tl.arange(0, TILE)
        value = tl.load(root + at, mask=at < size)
        for step in tl.static_range(1, RANKS):  # each rank starts at another, which spreads the load on the links
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
    """A rank finishes a slice of the elements for all: `share` tiles, dealt out to the blocks."""
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
