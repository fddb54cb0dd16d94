"""Row-parallel GEMM with the reduction tree, for large M on Hopper (wgmma and TMA, written in Gluon).

One persistent block on each multiprocessor works on tiles of 128 rows. A producer warp keeps STAGES pieces of K in
flight. Two warpgroups compute 64 rows each, independently of each other, so that one of them uses the tensor cores
while the other adds finished leaves or stores results. Leaves are summed in pairs. Of the subtrees that wait for their
sibling, pairs stay in registers and larger ones in shared memory, so no node of the tree leaves the chip.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from rlsync.kernels.triton.gluon_barrier import stage_barriers, thread_barrier

ROWS = gl.constexpr(64)
"""Number of rows of one warpgroup."""


@gluon.jit
def tile_of(index, tiles_m, tiles_n, GROUP: gl.constexpr):
    """Row and column of the tile `index`. Consecutive tiles share operands, so that these are found in the cache."""
    per_group = GROUP * tiles_n
    first = index // per_group * GROUP
    rows = gl.minimum(tiles_m - first, GROUP)
    return first + index % per_group % rows, index % per_group // rows


@gluon.jit
def _produce(x_desc, w_desc, x_smem, w_smem, full, empty, m, tiles_m, tiles_n, k_steps, GROUP: gl.constexpr):
    STAGES: gl.constexpr = w_smem.shape[0]
    BK: gl.constexpr = w_smem.shape[2]
    BN: gl.constexpr = w_smem.shape[1]
    step = 0
    for tile in range(gl.program_id(0), tiles_m * tiles_n, gl.num_programs(0)):
        row, column = tile_of(tile, tiles_m, tiles_n, GROUP)
        upper = row * 2 * ROWS
        lower = upper + ROWS
        whole = lower < m  # otherwise the second warpgroup has no rows, and its part of x is not loaded
        for k in range(k_steps):
            stage = step % STAGES
            mbarrier.wait(empty.index(stage), step // STAGES & 1 ^ 1)
            ready = full.index(stage)
            mbarrier.expect(ready, x_desc.block_type.nbytes * 2 + w_desc.block_type.nbytes, pred=whole)
            mbarrier.expect(ready, x_desc.block_type.nbytes + w_desc.block_type.nbytes, pred=lower >= m)
            tma.async_copy_global_to_shared(x_desc, [upper, k * BK], ready, x_smem.index(stage * 2))
            tma.async_copy_global_to_shared(x_desc, [lower, k * BK], ready, x_smem.index(stage * 2 + 1), pred=whole)
            tma.async_copy_global_to_shared(w_desc, [column * BN, k * BK], ready, w_smem.index(stage))
            step += 1


@gluon.jit
def _leaf(x_smem, w_smem, full, empty, step, leaf_steps, half: gl.constexpr, LAYOUT: gl.constexpr):
    """One leaf of this warpgroup's rows, summed in increasing k: [ROWS, BN] fp32. Also returns the next step."""
    STAGES: gl.constexpr = w_smem.shape[0]
    BN: gl.constexpr = w_smem.shape[1]
    acc = gl.zeros([ROWS, BN], gl.float32, LAYOUT)
    for k in range(leaf_steps):
        stage = step % STAGES
        mbarrier.wait(full.index(stage), step // STAGES & 1)
        acc = warpgroup_mma(
            x_smem.index(stage * 2 + half), w_smem.index(stage).permute((1, 0)), acc, use_acc=k > 0, is_async=True
        )
        acc = warpgroup_mma_wait(1, deps=[acc])
        mbarrier.arrive(empty.index((step + STAGES - 1) % STAGES), pred=k > 0)
        step += 1
    acc = warpgroup_mma_wait(0, deps=[acc])
    mbarrier.arrive(empty.index((step + STAGES - 1) % STAGES))
    return acc, step


@gluon.jit
def _pair(x_smem, w_smem, full, empty, step, leaf_steps, half: gl.constexpr, LAYOUT: gl.constexpr):
    """The sum of the next two leaves, and the next step."""
    left, step = _leaf(x_smem, w_smem, full, empty, step, leaf_steps, half, LAYOUT)
    right, step = _leaf(x_smem, w_smem, full, empty, step, leaf_steps, half, LAYOUT)
    return left + right, step


@gluon.jit
def _tree(
    x_smem, w_smem, waiting, full, empty, step, leaf_steps, quads,
    half: gl.constexpr, LEAVES: gl.constexpr, LAYOUT: gl.constexpr,
):  # fmt: skip
    """The root of all leaves, and the next step. `waiting` [2, ROWS, BN] fp32 holds subtrees of 4 and 8 leaves."""
    BN: gl.constexpr = w_smem.shape[1]
    if LEAVES == 1:
        root, step = _leaf(x_smem, w_smem, full, empty, step, leaf_steps, half, LAYOUT)
    elif LEAVES == 2:
        root, step = _pair(x_smem, w_smem, full, empty, step, leaf_steps, half, LAYOUT)
    else:
        QUADS: gl.constexpr = LEAVES // 4
        root = gl.zeros([ROWS, BN], gl.float32, LAYOUT)
        for q in range(quads):
            pair, step = _pair(x_smem, w_smem, full, empty, step, leaf_steps, half, LAYOUT)
            root, step = _pair(x_smem, w_smem, full, empty, step, leaf_steps, half, LAYOUT)
            root = pair + root
            if QUADS > 1:
                if q % 2 == 1:
                    root = waiting.index(0).load(LAYOUT) + root
                if QUADS > 2:
                    if q == 1:
                        waiting.index(1).store(root)
                    if q == 3:
                        root = waiting.index(1).load(LAYOUT) + root
                if q % 2 == 0:
                    if q == 0:  # the result of the last tile lies in the same memory and may still be copied from it
                        tma.store_wait(0)
                        thread_barrier()
                    waiting.index(0).store(root)
    return root, step


@gluon.jit
def add_bias(root, bias, first, n, LAYOUT: gl.constexpr):
    """Add the bias to root [ROWS, BN] fp32, whose columns begin at `first`."""
    columns = first + gl.arange(0, root.shape[1], gl.SliceLayout(0, LAYOUT))
    return root + gl.load(bias + columns, mask=columns < n, other=0.0).to(gl.float32)[None, :]


@gluon.jit
def _consume(
    x_smem, w_smem, waiting, out_smem, full, empty, out_desc, bias, tiles_m, tiles_n, n, leaf_steps, quads,
    half: gl.constexpr, LEAVES: gl.constexpr, GROUP: gl.constexpr, HAS_BIAS: gl.constexpr,
):  # fmt: skip
    BN: gl.constexpr = w_smem.shape[1]
    LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BN, 16])
    step = 0
    for tile in range(gl.program_id(0), tiles_m * tiles_n, gl.num_programs(0)):
        row, column = tile_of(tile, tiles_m, tiles_n, GROUP)
        root, step = _tree(x_smem, w_smem, waiting, full, empty, step, leaf_steps, quads, half, LEAVES, LAYOUT)
        if HAS_BIAS:
            root = add_bias(root, bias, column * BN, n, LAYOUT)
        tma.store_wait(0)
        thread_barrier()
        out_smem.store(root.to(out_desc.dtype))
        fence_async_shared()
        thread_barrier()
        tma.async_copy_shared_to_global(out_desc, [row * 2 * ROWS + half * ROWS, column * BN], out_smem)
    tma.store_wait(0)


@gluon.jit
def tree_gemm(
    x_desc, w_desc, out_desc, bias, m, n, leaf_steps, quads,
    LEAVES: gl.constexpr, STAGES: gl.constexpr, GROUP: gl.constexpr, HAS_BIAS: gl.constexpr,
):  # fmt: skip
    """Compute out = round(tree(x w^T) + bias).

    The descriptors have blocks [ROWS, BK] of x [M, K], [BN, BK] of w [N, K], and [ROWS, BN] of out [M, N]. A leaf has
    leaf_steps blocks of K. `quads` is LEAVES // 4; it is an argument at run time, so that the compiler does not unroll
    its loop, which would spill registers.
    """
    BN: gl.constexpr = w_desc.block_shape[0]
    BK: gl.constexpr = w_desc.block_shape[1]
    LEVELS: gl.constexpr = 2 if LEAVES > 8 else 1
    x_smem = gl.allocate_shared_memory(x_desc.dtype, [STAGES * 2, ROWS, BK], x_desc.layout)
    w_smem = gl.allocate_shared_memory(w_desc.dtype, [STAGES, BN, BK], w_desc.layout)
    full, empty = stage_barriers(STAGES, 2)
    SWIZZLED: gl.constexpr = gl.NVMMASharedLayout(128, 32, 2)
    waiting0 = gl.allocate_shared_memory(gl.float32, [LEVELS, ROWS, BN if LEAVES > 4 else 32], SWIZZLED)
    waiting1 = gl.allocate_shared_memory(gl.float32, [LEVELS, ROWS, BN if LEAVES > 4 else 32], SWIZZLED)
    if LEAVES > 4:  # the result uses the memory of the waiting subtrees, which have been read by then
        FIT: gl.constexpr = 32 // out_desc.dtype.primitive_bitwidth
        out0 = waiting0.index(0)._reinterpret(out_desc.dtype, [FIT, ROWS, BN], out_desc.layout).index(0)
        out1 = waiting1.index(0)._reinterpret(out_desc.dtype, [FIT, ROWS, BN], out_desc.layout).index(0)
    else:
        out0 = gl.allocate_shared_memory(out_desc.dtype, [ROWS, BN], out_desc.layout)
        out1 = gl.allocate_shared_memory(out_desc.dtype, [ROWS, BN], out_desc.layout)
    tiles_m = gl.cdiv(m, 2 * ROWS)
    tiles_n = gl.cdiv(n, BN)
    gl.warp_specialize(
        [
            (_consume, (
                x_smem, w_smem, waiting0, out0, full, empty, out_desc, bias, tiles_m, tiles_n, n, leaf_steps, quads,
                0, LEAVES, GROUP, HAS_BIAS,
            )),
            (_consume, (
                x_smem, w_smem, waiting1, out1, full, empty, out_desc, bias, tiles_m, tiles_n, n, leaf_steps, quads,
                1, LEAVES, GROUP, HAS_BIAS,
            )),
            (_produce, (x_desc, w_desc, x_smem, w_smem, full, empty, m, tiles_m, tiles_n, leaf_steps * LEAVES, GROUP)),
        ],
        [4, 1],
        [232, 40],
    )  # fmt: skip
