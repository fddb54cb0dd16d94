"""Every kernel and tile of the GEMM gives the same bits; a row's bits do not depend on the others; shards add up."""

import pytest
import torch

from rlsync.kernels.order import tree_sum

HARD = ("normal", "exponents", "cancelling", "subnormal", "infinite")


def _operand(rows, k, kind, seed):
    g = torch.Generator("cuda").manual_seed(seed)
    t = torch.randn(rows, k, generator=g, device="cuda")
    if kind == "exponents":
        t *= torch.exp2(torch.randint(-40, 41, t.shape, generator=g, device="cuda").float())
    elif kind == "cancelling":
        t[:, 1::2] = -t[:, ::2] * (1 + 2**-7 * torch.randint(0, 2, (rows, k // 2), generator=g, device="cuda"))
    elif kind == "subnormal":
        t *= 2.0**-70  # products are subnormal numbers of fp32
    elif kind == "infinite":
        t[0, k // 2] = torch.inf
    return t.to(torch.bfloat16)


def _bits(t):
    return torch.where(t.isnan(), torch.zeros_like(t), t).view(torch.int16 if t.itemsize == 2 else torch.int32)


def _same(a, b):
    return torch.equal(a.isnan(), b.isnan()) and torch.equal(_bits(a), _bits(b))


def _forms(leaves, leaf_k, dtype):
    """Every entry of the tile table, and a few more, as functions of (x, w, bias)."""
    from rlsync.kernels.triton.matmul import blockwise, persistent
    from rlsync.kernels.triton.tiles import (
        BlockTile,
        Form,
        PersistentTile,
        block_tile,
        persistent_tile,
        shared_memory,
    )

    rows, columns = (1, 16, 32, 64, 128, 256, 512, 8192), (512, 2048, 4096, 12288, 32768, 151936)
    shared = shared_memory(torch.device("cuda", 0))
    few = {block_tile(m, n, leaves, leaf_k, 2, shared) for m in rows for n in columns}
    few |= {BlockTile(16, 64, 64, 4, 3, Form.programs), BlockTile(128, 128, 64, 8, 3, Form.programs)}
    few |= {BlockTile(64, 32, 64, 4, 3, form) for form in Form if leaves <= 8 or form is not Form.side_by_side}
    many = {persistent_tile(m, n, leaves, leaf_k, dtype == torch.float32) for m in rows for n in columns} - {None}
    if leaves > 1:
        many.add(PersistentTile(64, 32, 4))
    calls = [lambda x, w, b, t=t: blockwise(x, w, b, leaves, dtype, t) for t in few]
    return calls + [lambda x, w, b, t=t: persistent(x, w, b, leaves, dtype, t) for t in many]


@pytest.mark.parametrize("kind", HARD)
@pytest.mark.parametrize("leaves", [1, 2, 4, 8, 16])
@pytest.mark.parametrize(("m", "k", "n"), [(300, 4096, 1024), (77, 2048, 520)])
def test_every_tile_gives_the_same_bits(m, k, n, leaves, kind):
    x, w = _operand(m, k, kind, 0), _operand(n, k, kind, 1)
    bias = torch.randn(n, device="cuda").to(torch.bfloat16)
    for added, dtype in ((None, torch.float32), (bias, torch.bfloat16)):
        first, *others = [form(x, w, added) for form in _forms(leaves, k // leaves, dtype)]
        assert all(_same(first, other) for other in others)
    if kind == "normal":  # the control: cuBLAS has another order and other roundings
        assert not _same(first, torch.matmul(x, w.t()) + bias)


@pytest.mark.parametrize("leaves", [1, 8])
def test_a_row_does_not_know_how_many_there_are(leaves):
    from rlsync.kernels.triton import matmul

    x, w = _operand(8192, 2048, "exponents", 0), _operand(512, 2048, "exponents", 1)
    whole = matmul(x, w, None, leaves, torch.bfloat16)
    for m in (1, 2, 15, 16, 17, 32, 64, 65, 128, 192, 200, 513, 1024, 5000):
        assert _same(matmul(x[:m], w, None, leaves, torch.bfloat16), whole[:m])
    assert _same(matmul(x[4097:4100], w, None, leaves, torch.bfloat16), whole[4097:4100])


@pytest.mark.parametrize("leaves", [1, 8])
@pytest.mark.parametrize("n", [520, 4096])
def test_fp32_rows_do_not_know_either(n, leaves):
    """Tiles of fp32 have fewer stages if shared memory has no room for more."""
    from rlsync.kernels.triton import matmul

    x, w = _operand(130, 2048, "exponents", 0).float(), _operand(n, 2048, "exponents", 1).float()
    whole = matmul(x, w, None, leaves, torch.float32)
    for m in (1, 17, 33, 64, 65):
        assert _same(matmul(x[:m], w, None, leaves, torch.float32), whole[:m])


def test_33_to_64_rows_of_a_wide_product():
    """Numbers of rows that use the persistent kernel, while fewer rows do not."""
    from rlsync.kernels.triton import matmul

    x, w = _operand(130, 4096, "exponents", 0), _operand(4096, 4096, "exponents", 1)
    whole = matmul(x, w, None, 8, torch.bfloat16)
    for m in (1, 32, 33, 48, 64, 65):
        assert _same(matmul(x[:m], w, None, 8, torch.bfloat16), whole[:m])


@pytest.mark.parametrize("columns", [32, 64])
def test_rows_of_half_a_tile(columns):
    """No rows are loaded for the second warpgroup, whose shared memory holds NaNs of another product."""
    from rlsync.kernels.triton.matmul import persistent
    from rlsync.kernels.triton.tiles import PersistentTile

    x, w = _operand(320, 4096, "exponents", 0), _operand(4096, 4096, "exponents", 1)
    tile = PersistentTile(columns, 64, 6)
    whole = persistent(x, w, None, 8, torch.bfloat16, tile)
    for m in (33, 64, 65, 192, 300, 320):
        nans = persistent(torch.full_like(x, torch.nan), w, None, 8, torch.bfloat16, tile)
        assert nans.isnan().all()
        assert _same(persistent(x[:m], w, None, 8, torch.bfloat16, tile), whole[:m])


@pytest.mark.parametrize(("n", "depth"), [(12288, 64), (24584, 64), (6400, 64), (12288, 32), (6400, 16)])
def test_two_accumulators_over_many_tiles(n, depth):
    """Blocks compute many tiles one after another; the last tiles lack rows, columns or a whole accumulator."""
    from rlsync.kernels.triton.matmul import persistent
    from rlsync.kernels.triton.tiles import PersistentTile

    x, w = _operand(1300, 1024, "exponents", 0), _operand(n, 1024, "exponents", 1)
    bias = torch.randn(n, device="cuda").to(torch.bfloat16)
    narrow, wide = PersistentTile(128, 64, 6), PersistentTile(192, depth, 4)
    for added in (None, bias):
        whole = persistent(x, w, added, 1, torch.bfloat16, narrow)
        for m in [129, 256, 1300] * 20:
            assert _same(persistent(x[:m], w, added, 1, torch.bfloat16, wide), whole[:m])
    assert not _same(persistent(x, w + w, bias, 1, torch.bfloat16, wide), whole)  # the control


@pytest.mark.parametrize("tp", [1, 2, 4, 8])
@pytest.mark.parametrize("m", [3, 400])
def test_shards_add_up(m, tp):
    from rlsync.kernels.triton import matmul

    x, w = _operand(m, 4096, "exponents", 0), _operand(512, 4096, "exponents", 1)
    parts = [(a, b) for a, b in zip(x.chunk(tp, 1), w.chunk(tp, 1), strict=True)]
    roots = torch.stack([matmul(a.contiguous(), b.contiguous(), None, 8 // tp, torch.float32) for a, b in parts])
    assert _same(tree_sum(roots), matmul(x, w, None, 8, torch.float32))


def test_strides_do_not_matter():
    from rlsync.kernels.triton import matmul

    x, w = _operand(200, 1024, "normal", 0), _operand(256, 1024, "normal", 1)
    expected = matmul(x, w, None, 8, torch.bfloat16)
    assert _same(matmul(x.t().contiguous().t(), w, None, 8, torch.bfloat16), expected)
    unaligned = torch.empty(200, 1027, dtype=torch.bfloat16, device="cuda")[:, 3:]
    unaligned.copy_(x)
    assert _same(matmul(unaligned, w, None, 8, torch.bfloat16), expected)


@pytest.mark.parametrize("m", [16, 512])
def test_error_is_no_larger_than_that_of_one_sum(m):
    from rlsync.kernels.triton import matmul

    x, w = _operand(m, 4096, "normal", 0), _operand(1024, 4096, "normal", 1)
    exact = x.double() @ w.double().t()
    errors = [(matmul(x, w, None, leaves, torch.float32).double() - exact).norm() for leaves in (8, 1)]
    assert errors[0] <= 1.05 * errors[1]


@pytest.mark.parametrize("leaves", [1, 2, 8])
@pytest.mark.parametrize(("m", "k", "n"), [(300, 896, 1152), (300, 4864, 896), (300, 8960, 1536), (2100, 896, 1152)])
def test_odd_depths(m, k, n, leaves):
    """Leaves that a stage of 64 does not divide, like those of Qwen2.5: 112, 608 and 1120 long."""
    from rlsync.kernels.triton import matmul

    x, w = _operand(m, k, "normal", 0), _operand(n, k, "normal", 1)
    bias = torch.randn(n, device="cuda").to(torch.bfloat16)
    whole = matmul(x, w, bias, leaves, torch.bfloat16)
    assert all(_same(matmul(x[i : i + 1], w, bias, leaves, torch.bfloat16), whole[i : i + 1]) for i in (0, 128, m - 1))
    assert _same(matmul(x[:64], w, bias, leaves, torch.bfloat16), whole[:64])
    torch.testing.assert_close(whole.double(), x.double() @ w.double().t() + bias.double(), rtol=2e-2, atol=1e-2)
