"""The kernel `prefill` of attention.py for bf16 on Hopper, written in Gluon, with the same bits.

A block has two warpgroups, or three if small heads leave enough registers. Each of them works independently on 64
consecutive queries of one sequence and head. A producer warp keeps tiles of keys and values in flight. A warpgroup
starts the scores of the next tile before it multiplies the weights of the last tile by its values, so the softmax runs
in parallel with the MMAs.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from rlsync.kernels.triton.attention_pipeline import ROWS, item_of, produce, skip, tiles_of, wait_for
from rlsync.kernels.triton.gluon_barrier import stage_barriers, thread_barrier


@gluon.jit
def _score(q, ring, full, load):
    """Start q k^T for the tile whose keys are load `load`."""
    LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, ROWS, 16])
    zeros = gl.zeros([ROWS, ROWS], gl.float32, LAYOUT)
    a = gl.convert_layout(q, gl.DotOperandLayout(0, LAYOUT, 2))
    return warpgroup_mma(a, ring.index(wait_for(full, load)).permute((1, 0)), zeros, use_acc=False, is_async=True)


@gluon.jit
def _faded(sums, fade):
    """Sums [ROWS, ...] scaled by the factor of each row."""
    return sums * gl.convert_layout(fade, gl.SliceLayout(1, sums.type.layout))[:, None]


@gluon.jit
def _weigh(p, fade, values, ones, total, acc):
    """Start p v and the row sum, which are added to the sums so far, scaled by `fade`."""
    acc = warpgroup_mma(p, values, _faded(acc, fade), is_async=True)
    a = gl.convert_layout(p, gl.DotOperandLayout(0, total.type.layout, 2))
    return warpgroup_mma(a, ones, _faded(total, fade), is_async=True), acc


@gluon.jit
def _soften(scores, highest, rows, tile, window, scale_log2, A: gl.constexpr, HIDES: gl.constexpr):
    """The highest score so far, the factor by which older sums are scaled, and the weights in layout A."""
    scores = scores * scale_log2
    if HIDES:
        keys = tile * ROWS + gl.arange(0, ROWS, gl.SliceLayout(0, scores.type.layout))
        distance = rows[:, None] - keys[None, :]
        scores = gl.where((distance >= 0) & (distance < window), scores, float("-inf"))
    top = gl.maximum(highest, gl.max(scores, 1))
    base = gl.where(top == float("-inf"), 0.0, top)
    p = gl.exp2(scores - base[:, None]).to(gl.bfloat16)
    return top, gl.exp2(highest - base), gl.convert_layout(p, A)


@gluon.jit
def _step(q, pipe, load, rows, tile, window, scale_log2, state, HIDES: gl.constexpr, OVERLAP: gl.constexpr):
    """Compute scores and weights of a tile, whose keys are load `load`, while the tile before is added to the sums."""
    ring, full, empty, ones = pipe
    highest, fade, p, total, acc = state
    A: gl.constexpr = p.type.layout
    SLOTS: gl.constexpr = ring.shape[0]
    scores = _score(q, ring, full, load)
    total, acc = _weigh(p, fade, ring.index((load - 1) % SLOTS), ones, total, acc)
    if OVERLAP:
        scores = warpgroup_mma_wait(2, deps=[scores])
    else:
        scores, total, acc = warpgroup_mma_wait(0, deps=[scores, total, acc])
    mbarrier.arrive(empty.index(load % SLOTS))
    highest, fade, next_p = _soften(scores, highest, rows, tile, window, scale_log2, A, HIDES)
    wait_for(full, load + 1)  # placed here, because the compiler moves no part of the softmax past a wait
    if OVERLAP:
        total, acc, p, next_p, fade = warpgroup_mma_wait(0, deps=[total, acc, p, next_p, fade])
    mbarrier.arrive(empty.index((load - 1) % SLOTS))
    return highest, fade, next_p, total, acc


@gluon.jit
def _clear(values, rows):
    """Set the values from row `rows` on to 0. They belong to no key, and a weight of 0 would not hide a NaN."""
    D: gl.constexpr = values.shape[1]
    LAYOUT: gl.constexpr = gl.BlockedLayout([1, 8], [256 // D, D // 8], [4, 1], [1, 0])
    exists = gl.arange(0, ROWS, gl.SliceLayout(1, LAYOUT)) < rows
    values.store(gl.where(exists[:, None], values.load(LAYOUT), 0.0))
    fence_async_shared()
    thread_barrier()


@gluon.jit
def _split(q, pipe, load, rows, first, until, open_from, open_until, length, window, scale_log2, OVERLAP: gl.constexpr):
    """Highest score [ROWS], sum [ROWS] and weighted values [ROWS, D] of the tiles first .. until - 1 (at least one).

    The keys of tile t are load 2 t + `load`. Every row sees all keys of the tiles open_from .. open_until - 1.
    """
    ring, full, empty, ones = pipe
    SLOTS: gl.constexpr = ring.shape[0]
    D: gl.constexpr = ring.shape[2]
    ACC: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    A: gl.constexpr = gl.DotOperandLayout(0, ACC, 2)
    total = gl.zeros([ROWS, 16], gl.float32, gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 16, 16]))
    acc = gl.zeros([ROWS, D], gl.float32, ACC)
    highest = gl.full([ROWS], float("-inf"), gl.float32, rows.type.layout)
    scores = warpgroup_mma_wait(0, deps=[_score(q, ring, full, load + 2 * first)])
    mbarrier.arrive(empty.index((load + 2 * first) % SLOTS))
    highest, fade, p = _soften(scores, highest, rows, first, window, scale_log2, A, True)
    wait_for(full, load + 2 * first + 1)
    begin = first + 1
    for part in gl.static_range(3):  # before, within and after the tiles of which every row sees all keys
        end = gl.minimum(open_from if part == 0 else open_until if part == 1 else until, until)
        for tile in range(begin, end):
            highest, fade, p, total, acc = _step(
                q, pipe, load + 2 * tile, rows, tile, window, scale_log2, (highest, fade, p, total, acc),
                part != 1, OVERLAP,
            )  # fmt: skip
        begin = gl.maximum(begin, end)
    values = ring.index((load + 2 * until - 1) % SLOTS)
    if until * ROWS > length:
        _clear(values, length - (until - 1) * ROWS)
    total, acc = _weigh(p, fade, values, ones, total, acc)
    total, acc = warpgroup_mma_wait(0, deps=[total, acc])
    mbarrier.arrive(empty.index((load + 2 * until - 1) % SLOTS))
    return highest, gl.convert_layout(gl.max(total, 1), rows.type.layout), acc


@gluon.jit
def _attend(
    q, pipe, waiting, load, rows, low, high, open_from, open_until, length, window, scale_log2,
    SPLIT: gl.constexpr, OVERLAP: gl.constexpr,
):  # fmt: skip
    """Like `_split`, for all splits of the tiles low .. high - 1; `waiting` [ROWS, D] fp32 holds the merged ones."""
    D: gl.constexpr = waiting.shape[1]
    LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    highest = gl.full([ROWS], float("-inf"), gl.float32, rows.type.layout)
    total = gl.full([ROWS], 0.0, gl.float32, rows.type.layout)
    acc = gl.zeros([ROWS, D], gl.float32, LAYOUT)
    for split in range(low // SPLIT, gl.cdiv(high, SPLIT)):
        first = gl.maximum(low, split * SPLIT)
        until = gl.minimum(high, (split + 1) * SPLIT)
        h, t, acc = _split(
            q, pipe, load, rows, first, until, open_from, open_until, length, window, scale_log2, OVERLAP
        )  # fmt: skip
        top = gl.maximum(highest, h)
        base = gl.where(top == float("-inf"), 0.0, top)
        old = gl.exp2(highest - base)
        new = gl.exp2(h - base)
        total = total * old + t * new
        if split > low // SPLIT:  # the first one has nothing to merge with
            acc = _faded(waiting.load(LAYOUT), old) + _faded(acc, new)
        if until < high:
            waiting.store(acc)
        highest = top
    return highest, total, acc


@gluon.jit
def _consume(
    common, waiting, part: gl.constexpr, BLOCK: gl.constexpr, PAGED: gl.constexpr, SPLIT: gl.constexpr,
    OVERLAP: gl.constexpr,
):  # fmt: skip
    """Compute the queries of one warpgroup, which begin at row part * ROWS of each block."""
    memory, pipe, queries, pack, scale_log2 = common
    out, lse, stride_ot = memory
    q_smem, q_full, q_empty = queries
    heads, blocks, window = pack[4], pack[5], pack[6]
    ring, full, empty = pipe[0], pipe[1], pipe[2]
    D: gl.constexpr = ring.shape[2]
    SCORES: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, ROWS, 16])
    A: gl.constexpr = gl.DotOperandLayout(0, SCORES, 2)
    ACC: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    load = 0
    phase = 0
    for index in range(gl.program_id(0), heads * blocks, gl.num_programs(0)):
        head, _seq, begin, count, length, block_row = item_of(index, pack, BLOCK, PAGED)
        mbarrier.wait(q_full.index(part), phase)
        q_tile = q_smem.index(part).load(A)
        fence_async_shared()  # the next tile must not overwrite queries whose loads have been issued but not finished
        thread_barrier()
        mbarrier.arrive(q_empty.index(part))
        phase ^= 1
        block_low, block_high = tiles_of(block_row, BLOCK, count, length, window)
        first_row = block_row + part * ROWS
        low, high = tiles_of(first_row, ROWS, count, length, window)
        low = gl.minimum(low, block_high)
        high = gl.where(first_row < count, high, low)
        skip(full, empty, load, low - block_low)
        if first_row < count:
            first = length - count + first_row
            positions = first + gl.arange(0, ROWS, gl.SliceLayout(1, SCORES))
            rows = first_row + gl.arange(0, ROWS, gl.SliceLayout(1, SCORES))
            open_from = gl.cdiv(gl.maximum(0, first + ROWS - window), ROWS)
            highest, total, acc = _attend(
                q_tile, pipe, waiting, load - 2 * block_low, positions, low, high, open_from, (first + 1) // ROWS,
                length, window, scale_log2, SPLIT, OVERLAP,
            )  # fmt: skip
            safe = gl.where(total == 0.0, 1.0, total)
            lse_at = lse + (begin + rows).to(gl.int64) * heads + head
            gl.store(lse_at, (highest + gl.log2(safe)) * 0.6931471805599453, mask=rows < count)
            share = gl.convert_layout(gl.div_rn(1.0, safe), gl.SliceLayout(1, ACC))
            result = acc * share[:, None] + 0.0  # as in `prefill`
            rows = first_row + gl.arange(0, ROWS, gl.SliceLayout(1, ACC))
            out_at = out + (begin + rows)[:, None].to(gl.int64) * stride_ot + head * D
            out_at += gl.arange(0, D, gl.SliceLayout(0, ACC))[None, :]
            gl.store(out_at, result.to(gl.bfloat16), mask=(rows < count)[:, None])
        skip(full, empty, load + 2 * (high - block_low), block_high - high)
        load += 2 * (block_high - block_low)


@gluon.jit
def _run(common, q_desc, loads, GROUPS: gl.constexpr, PAGED: gl.constexpr, SPLIT: gl.constexpr, OVERLAP: gl.constexpr):
    """Start GROUPS warpgroups of queries and a producer."""
    pipe, queries, pack = common[1], common[2], common[3]
    ring, full, empty, ones = pipe
    SLOTS: gl.constexpr = ring.shape[0]
    D: gl.constexpr = ring.shape[2]
    BLOCK: gl.constexpr = GROUPS * ROWS
    gl.static_assert(GROUPS == 2 or GROUPS == 3)
    for i in gl.static_range(SLOTS):
        mbarrier.init(full.index(i), count=1)
        mbarrier.init(empty.index(i), count=GROUPS)
    waiting = gl.allocate_shared_memory(gl.float32, [GROUPS, ROWS, D], gl.NVMMASharedLayout(128, 32, 2))
    ones.store(gl.full([ROWS, 16], 1.0, gl.bfloat16, gl.BlockedLayout([1, 8], [16, 2], [4, 1], [1, 0])))
    fence_async_shared()
    if GROUPS == 2:
        gl.warp_specialize(
            [
                (_consume, (common, waiting.index(0), 0, BLOCK, PAGED, SPLIT, OVERLAP)),
                (_consume, (common, waiting.index(1), 1, BLOCK, PAGED, SPLIT, OVERLAP)),
                (produce, (q_desc, queries, loads, pack, BLOCK, PAGED)),
            ],
            [4, 1],
            [232, 40],
        )
    else:
        gl.warp_specialize(
            [
                (_consume, (common, waiting.index(0), 0, BLOCK, PAGED, SPLIT, OVERLAP)),
                (_consume, (common, waiting.index(1), 1, BLOCK, PAGED, SPLIT, OVERLAP)),
                (_consume, (common, waiting.index(2), 2, BLOCK, PAGED, SPLIT, OVERLAP)),
                (produce, (q_desc, queries, loads, pack, BLOCK, PAGED)),
            ],
            [4, 4, 1],
            [160, 160, 32],
        )


@gluon.jit
def _pipe(D: gl.constexpr, SLOTS: gl.constexpr):
    """The ring of tiles, its barriers, and a matrix of ones for the row sums."""
    ring = gl.allocate_shared_memory(
        gl.bfloat16, [SLOTS, ROWS, D], gl.NVMMASharedLayout.get_default_for([ROWS, D], gl.bfloat16)
    )
    full = gl.allocate_shared_memory(gl.int64, [SLOTS, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [SLOTS, 1], mbarrier.MBarrierLayout())
    return ring, full, empty, gl.allocate_shared_memory(gl.bfloat16, [ROWS, 16], gl.NVMMASharedLayout(32, 16, 2))


@gluon.jit
def _queries(D: gl.constexpr, GROUPS: gl.constexpr):
    """Memory for a tile of queries of each warpgroup, and its barriers."""
    tiles = gl.allocate_shared_memory(
        gl.bfloat16, [GROUPS, ROWS, D], gl.NVMMASharedLayout.get_default_for([ROWS, D], gl.bfloat16)
    )
    full, empty = stage_barriers(GROUPS, 1)
    return tiles, full, empty


@gluon.jit(do_not_specialize=["sequences", "rounds", "heads", "blocks", "group", "window"])
def prefill_packed(
    q_desc, k_desc, v_desc, out, lse, starts, sequences, rounds, heads, blocks, group, scale_log2, window, stride_ot,
    GROUPS: gl.constexpr, SPLIT: gl.constexpr, SLOTS: gl.constexpr, OVERLAP: gl.constexpr,
):  # fmt: skip
    """Attention over sequences that lie end to end, with the heads side by side in a row.

    The descriptors have blocks [64, D] of q [T, Hq * D], and of k and v [T, Hkv * D]. out has the shape of q;
    lse [T, Hq]; starts [S + 1]. A split has SPLIT tiles of 64 keys. `blocks` is an upper bound for the number of blocks
    of a head, T // (64 GROUPS) + S. GROUPS (warpgroups of queries) and OVERLAP change the speed and not the bits.
    """
    pipe = _pipe(k_desc.block_shape[1], SLOTS)
    pack = starts, starts, sequences, rounds, heads, blocks, window
    common = (out, lse, stride_ot), pipe, _queries(k_desc.block_shape[1], GROUPS), pack, scale_log2
    _run(common, q_desc, (k_desc, v_desc, pipe[0], pipe[1], pipe[2], group), GROUPS, False, SPLIT, OVERLAP)


@gluon.jit(do_not_specialize=["sequences", "rounds", "heads", "blocks", "group", "window", "pages", "kv_heads"])
def prefill_paged(
    q_desc, desc, out, lse, table, starts, lengths, sequences, rounds, heads, blocks, group, scale_log2, window,
    page, pages, kv_heads, stride_ot, D: gl.constexpr,
    GROUPS: gl.constexpr, SPLIT: gl.constexpr, SLOTS: gl.constexpr, OVERLAP: gl.constexpr,
):  # fmt: skip
    """Like prefill_packed, for the last tokens of sequences in a paged cache.

    `desc` has blocks of one page by 64 channels of the cache as a matrix [blocks * Hkv * page, 2 D]; table [S, pages];
    lengths [S].
    """
    pipe = _pipe(D, SLOTS)
    pack = starts, lengths, sequences, rounds, heads, blocks, window
    common = (out, lse, stride_ot), pipe, _queries(D, GROUPS), pack, scale_log2
    loads = desc, table, pages, kv_heads, page, pipe[0], pipe[1], pipe[2], group
    _run(common, q_desc, loads, GROUPS, True, SPLIT, OVERLAP)
