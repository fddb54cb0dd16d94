"""Column-parallel GEMM on Hopper in tiles of 128 rows by 192 columns, for shapes where 128 columns need a second wave.

The widths of tensors must be powers of two, so a warpgroup has two accumulators, of 128 and of 64 columns, and a stage
has two pieces of w. Otherwise it works like gemm_hopper.py with one leaf.
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

from rlsync.kernels.triton.gemm_hopper import ROWS, add_bias, tile_of
from rlsync.kernels.triton.gluon_barrier import stage_barriers, thread_barrier

MAIN = gl.constexpr(128)
REST = gl.constexpr(64)
WIDTHS = (MAIN.value, REST.value)
"""Numbers of columns of the two accumulators."""


@gluon.jit
def _produce(
    x_desc, main_desc, rest_desc, x_smem, main, rest, full, empty, tiles_m, tiles_n, steps, GROUP: gl.constexpr
):  # fmt: skip
    STAGES: gl.constexpr = main.shape[0]
    BK: gl.constexpr = main.shape[2]
    step = 0
    for tile in range(gl.program_id(0), tiles_m * tiles_n, gl.num_programs(0)):
        row, column = tile_of(tile, tiles_m, tiles_n, GROUP)
        first = column * (MAIN + REST)
        for k in range(steps):
            stage = step % STAGES
            mbarrier.wait(empty.index(stage), step // STAGES & 1 ^ 1)
            ready = full.index(stage)
            w_bytes: gl.constexpr = main_desc.block_type.nbytes + rest_desc.block_type.nbytes
            mbarrier.expect(ready, x_desc.block_type.nbytes * 2 + w_bytes)
            tma.async_copy_global_to_shared(x_desc, [row * 2 * ROWS, k * BK], ready, x_smem.index(stage * 2))
            tma.async_copy_global_to_shared(main_desc, [first, k * BK], ready, main.index(stage))
            tma.async_copy_global_to_shared(rest_desc, [first + MAIN, k * BK], ready, rest.index(stage))
            tma.async_copy_global_to_shared(x_desc, [row * 2 * ROWS + ROWS, k * BK], ready, x_smem.index(stage * 2 + 1))
            step += 1


@gluon.jit
def _consume(
    x_smem, main, rest, main_out, rest_out, full, empty, main_desc, rest_desc, bias, tiles_m, tiles_n, n, steps,
    half: gl.constexpr, GROUP: gl.constexpr, HAS_BIAS: gl.constexpr,
):  # fmt: skip
    STAGES: gl.constexpr = main.shape[0]
    MAIN_LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, MAIN, 16])
    REST_LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, REST, 16])
    step = 0
    for tile in range(gl.program_id(0), tiles_m * tiles_n, gl.num_programs(0)):
        row, column = tile_of(tile, tiles_m, tiles_n, GROUP)
        left = gl.zeros([ROWS, MAIN], gl.float32, MAIN_LAYOUT)
        right = gl.zeros([ROWS, REST], gl.float32, REST_LAYOUT)
        for k in range(steps):
            stage = step % STAGES
            x = x_smem.index(stage * 2 + half)
            mbarrier.wait(full.index(stage), step // STAGES & 1)
            left = warpgroup_mma(x, main.index(stage).permute((1, 0)), left, use_acc=k > 0, is_async=True)
            right = warpgroup_mma(x, rest.index(stage).permute((1, 0)), right, use_acc=k > 0, is_async=True)
            left, right = warpgroup_mma_wait(2, deps=[left, right])
            mbarrier.arrive(empty.index((step + STAGES - 1) % STAGES), pred=k > 0)
            step += 1
        left, right = warpgroup_mma_wait(0, deps=[left, right])
        mbarrier.arrive(empty.index((step + STAGES - 1) % STAGES))
        first = column * (MAIN + REST)
        if HAS_BIAS:
            left = add_bias(left, bias, first, n, MAIN_LAYOUT)
            right = add_bias(right, bias, first + MAIN, n, REST_LAYOUT)
        tma.store_wait(0)
        thread_barrier()
        main_out.store(left.to(main_desc.dtype))
        rest_out.store(right.to(rest_desc.dtype))
        fence_async_shared()
        thread_barrier()
        top = row * 2 * ROWS + half * ROWS
        tma.async_copy_shared_to_global(main_desc, [top, first], main_out)
        tma.async_copy_shared_to_global(rest_desc, [top, first + MAIN], rest_out)
    tma.store_wait(0)


@gluon.jit
def wide_gemm(
    x_desc, w_main, w_rest, out_main, out_rest, bias, m, n, steps,
    STAGES: gl.constexpr, GROUP: gl.constexpr, HAS_BIAS: gl.constexpr,
):  # fmt: skip
    """Compute out = round(x w^T + bias) in bf16.

    The descriptors have blocks [ROWS, BK] of x [M, K], [MAIN, BK] and [REST, BK] of w [N, K], and [ROWS, MAIN] and
    [ROWS, REST] of out [M, N]. `steps` is K / BK.
    """
    BK: gl.constexpr = x_desc.block_shape[1]
    x_smem = gl.allocate_shared_memory(x_desc.dtype, [STAGES * 2, ROWS, BK], x_desc.layout)
    main = gl.allocate_shared_memory(w_main.dtype, [STAGES, MAIN, BK], w_main.layout)
    rest = gl.allocate_shared_memory(w_rest.dtype, [STAGES, REST, BK], w_rest.layout)
    full, empty = stage_barriers(STAGES, 2)
    main_out = gl.allocate_shared_memory(out_main.dtype, [2, ROWS, MAIN], out_main.layout)
    rest_out = gl.allocate_shared_memory(out_rest.dtype, [2, ROWS, REST], out_rest.layout)
    tiles_m = gl.cdiv(m, 2 * ROWS)
    tiles_n = gl.cdiv(n, MAIN + REST)
    gl.warp_specialize(
        [
            (_consume, (
                x_smem, main, rest, main_out.index(0), rest_out.index(0), full, empty, out_main, out_rest, bias,
                tiles_m, tiles_n, n, steps, 0, GROUP, HAS_BIAS,
            )),
            (_consume, (
                x_smem, main, rest, main_out.index(1), rest_out.index(1), full, empty, out_main, out_rest, bias,
                tiles_m, tiles_n, n, steps, 1, GROUP, HAS_BIAS,
            )),
            (_produce, (x_desc, w_main, w_rest, x_smem, main, rest, full, empty, tiles_m, tiles_n, steps, GROUP)),
        ],
        [4, 1],
        [232, 40],
    )  # fmt: skip
