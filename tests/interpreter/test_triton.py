"""The logic of the GPU kernels in Triton's interpreter (fp32, on the CPU). tests/gpu tests their bits."""

import importlib
import math
from dataclasses import replace

import pytest
import torch

from rlsync.kernels import cpu, ops
from rlsync.kernels import triton as gpu
from rlsync.kernels.attention_spec import AttentionSpec
from rlsync.kernels.keyed_sum import Rectangle, keyed_sums
from rlsync.kernels.order import tree_sum
from rlsync.kernels.triton import attention_backward, attention_launch
from rlsync.kernels.triton.gemm import combine
from rlsync.trainer import prefix_tree


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch):
    """Sizes so small that every loop runs more than once."""
    for name, value in {"TILE": 16, "SPLIT": 32, "_ROWS": (16,)}.items():
        monkeypatch.setattr(attention_launch, name, value)
    for module, name in (("norm", "_LARGEST_BLOCK"), ("logprobs", "TILE"), ("scores", "TILE"), ("sampling", "TILE")):
        monkeypatch.setattr(importlib.import_module(f"rlsync.kernels.triton.{module}"), name, 32)
    for module in ("logprobs", "sampling"):
        monkeypatch.setattr(importlib.import_module(f"rlsync.kernels.triton.{module}"), "CHUNK", 64)


def _random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("leaves", [1, 2, 8])
@pytest.mark.parametrize(("m", "k", "n"), [(5, 512, 40), (20, 112, 33), (3, 1024, 16), (20, 128, 1)])
def test_matmul_is_the_tree(leaves, m, k, n):
    x, w, bias = _random(m, k), _random(n, k, seed=1), _random(n, seed=2)
    expected = ops.row_parallel_linear(x, w, bias, leaves=leaves) if leaves > 1 else ops.linear(x, w, bias)
    torch.testing.assert_close(gpu.matmul(x, w, bias, leaves, torch.float32), expected, rtol=1e-5, atol=1e-4)
    wide = torch.zeros(m, 2 * k)
    wide[:, ::2] = x
    strided = gpu.matmul(wide[:, ::2], w, None, leaves, torch.float32)
    assert torch.equal(strided, gpu.matmul(x, w, None, leaves, torch.float32))


def test_a_row_of_a_product_does_not_depend_on_the_others():
    """The fixture ordered_dot is needed, because with NumPy's BLAS other rows may change the bits of a row."""
    x, w = _random(20, 64), _random(48, 64, seed=1)
    whole = gpu.matmul(x, w, None, 1, torch.float32)
    for first in range(20):
        assert torch.equal(gpu.matmul(x[first:], w, None, 1, torch.float32), whole[first:]), first
    assert not torch.equal(gpu.matmul(x.flip(1), w.flip(1), None, 1, torch.float32), whole)  # the control: k backwards


def test_the_tree_of_parts_is_balanced():
    """Numbers whose sum depends on the order, so only ((a + b) + (c + d)) + ... gives the bits of the tree."""
    parts = _random(8, 1, 64) * torch.exp2(_random(8, 1, 64, seed=3) * 12)
    out = torch.empty(1, 64)
    combine[(1,)](parts, parts, out, 64, 64, LEAVES=8, BLOCK=64, HAS_BIAS=False)
    assert torch.equal(out, tree_sum(parts))
    assert not torch.equal(out, parts.sum(0))  # the control


def test_rows():
    x, w = _random(7, 100), _random(100, seed=1)
    out, rstd = gpu.rms_norm(x, w, 1e-6)
    torch.testing.assert_close(out, torch.nn.functional.rms_norm(x, (100,), w, 1e-6))
    torch.testing.assert_close(rstd[:, 0], (x.square().mean(-1) + 1e-6).rsqrt())
    torch.testing.assert_close(gpu.silu_and_mul(x, x), torch.nn.functional.silu(x) * x)
    torch.testing.assert_close(gpu.logprobs(x, 0.7), torch.log_softmax(x / 0.7, -1))


def test_scored_draws_are_those_of_log_probs():
    logits = _random(5, 300) * 4
    seeds, positions = torch.arange(5) * 977, torch.arange(5) + 11
    for temperature in (1.0, 0.7):
        tokens, logprobs, _ = gpu.draw_scored(logits, temperature, seeds, positions)
        whole = gpu.logprobs(logits, temperature)
        assert torch.equal(tokens, gpu.draw(whole, seeds, positions))
        assert torch.equal(logprobs, whole.gather(1, tokens[:, None])[:, 0])
    assert not torch.equal(tokens, gpu.draw(whole, seeds + 1, positions))  # the control


def test_draw_is_the_cpu_s():
    rows = torch.log_softmax(_random(12, 100), -1)
    seeds, positions = torch.arange(12) * 2**40 + 7, torch.arange(12)
    assert torch.equal(gpu.draw(rows, seeds, positions), ops.draw(rows, seeds, positions))
    assert not torch.equal(gpu.draw(rows, seeds + 1, positions), ops.draw(rows, seeds, positions))  # the control


LENGTHS = (1, 90, 37)


@pytest.mark.parametrize("window", [0, 1, 25])
def test_attention(window):
    heads, kv_heads, dim, block = 4, 2, 16, 16
    starts = torch.tensor([0, *LENGTHS]).cumsum(0)
    q, k, v = (_random(sum(LENGTHS), h, dim, seed=s) for s, h in enumerate((heads, kv_heads, kv_heads)))
    out, lse = gpu.packed_attention(q, k, v, starts, 1 / math.sqrt(dim), window)
    expected = ops.attention(q, k, v, AttentionSpec(starts=starts, scale=1 / math.sqrt(dim), window=window))
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    assert torch.isfinite(lse).all()

    pages = [-(-n // block) for n in LENGTHS]
    cache = torch.full((sum(pages) + 1, kv_heads, block, 2 * dim), float("nan"))
    table = torch.zeros(len(LENGTHS), max(pages), dtype=torch.int32)
    for s, (begin, length) in enumerate(zip(starts.tolist(), LENGTHS, strict=False)):
        for j in range(length):
            table[s, j // block] = sum(pages[:s]) + j // block
            cache[table[s, j // block], :, j % block] = torch.cat((k[begin + j], v[begin + j]), -1)
    lengths = torch.tensor(LENGTHS)
    last = starts[1:] - 1
    decoded = gpu.decode_attention(q[last], cache, table, lengths, 1 / math.sqrt(dim), window)
    torch.testing.assert_close(decoded, expected[last], rtol=1e-4, atol=1e-5)
    new = (1, 20, 37)  # a decode, a chunk, a whole prompt
    rows = torch.cat([torch.arange(int(starts[s + 1]) - n, int(starts[s + 1])) for s, n in enumerate(new)])
    mixed = gpu.paged_attention(
        q[rows], cache, table, torch.tensor([0, *new]).cumsum(0), lengths, 1 / math.sqrt(dim), window
    )
    torch.testing.assert_close(mixed, expected[rows], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("window", [0, 1, 25])
def test_attention_along_a_tree(window, monkeypatch):
    """Segments shorter and longer than a block of queries, paths over several tiles and splits, chunks of paths."""
    monkeypatch.setattr(prefix_tree, "_CHUNK_KEYS", 200)
    heads, kv_heads, dim = 4, 2, 16
    first = torch.arange(90)
    sequences = [first, torch.cat((first[:70], torch.arange(300, 337))), torch.cat((first[:33], torch.arange(5)))]
    layout = prefix_tree.lay_as_tree([*sequences, torch.arange(400, 420)])
    q, k, v = (_random(len(layout.tokens), h, dim, seed=s) for s, h in enumerate((heads, kv_heads, kv_heads)))
    arguments = (layout.starts, layout.paths, 1 / math.sqrt(dim), window)
    out, lse = gpu.tree_attention(q, k, v, *arguments)
    expected, expected_lse = cpu.tree_attention(q, k, v, *arguments)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(lse, expected_lse, rtol=1e-4, atol=1e-5)
    for rows in layout.rows:
        starts = torch.tensor([0, len(rows)])
        alone, _ = gpu.packed_attention(q[rows], k[rows], v[rows], starts, 1 / math.sqrt(dim), window)
        torch.testing.assert_close(out[rows], alone, rtol=1e-5, atol=1e-6)
    other = replace(layout.paths, table=(layout.paths.table - 1).clamp_min(0))
    wrong, _ = gpu.tree_attention(q, k, v, layout.starts, other, 1 / math.sqrt(dim), window)
    assert not torch.allclose(wrong, expected, rtol=1e-2)  # the control

    backward = attention_backward._backward

    def checked(grad, q, k, v, out, lse, bounds, key_bounds, most_rows, most_keys, scale, window):
        assert (int(bounds.diff().max()) <= most_rows, int(key_bounds.diff().max()) <= most_keys) == (True, True)
        return backward(grad, q, k, v, out, lse, bounds, key_bounds, most_rows, most_keys, scale, window)

    monkeypatch.setattr(attention_backward, "_backward", checked)
    grad, longest = _random(*q.shape, seed=7), int(layout.starts.diff().max())
    assert len(layout.paths.chunks) > 1
    mine, right = (
        side.tree_attention_backward(grad, q, k, v, expected, expected_lse, *arguments, longest) for side in (gpu, cpu)
    )
    for a, b in zip(mine, right, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_rope_strides_and_the_cache():
    """Rope, cache writes and the fused norm on rows with gaps, like slices of one projection, compared with PyTorch."""
    table = torch.randn(50, 24, generator=torch.Generator().manual_seed(1))
    qkv = _random(9, (4 + 2 + 2) * 24)
    q, k, v = (part.view(9, -1, 24) for part in qkv.split([96, 48, 48], -1))
    positions = torch.arange(9) * 5
    for mine, theirs in zip(gpu.rope(q, k, table, positions), ops.rope(q, k, table, positions), strict=True):
        assert torch.equal(mine, theirs)
    assert not torch.equal(gpu.rope(q, k, table, positions + 1)[0], ops.rope(q, k, table, positions)[0])  # the control

    cache, expected = torch.zeros(4, 2, 4, 48), torch.zeros(4, 2, 4, 48)
    slots = torch.tensor([3, 0, 7, -1, 15, 9, -1, 4, 5])
    gpu.write_cache(k, v, cache, slots)
    ops.write_cache(k[slots >= 0], v[slots >= 0], expected, slots[slots >= 0])
    assert torch.equal(cache, expected)

    w = _random(24, seed=2)
    assert torch.equal(gpu.rms_norm(q, w, 1e-6)[0], gpu.rms_norm(q.contiguous(), w, 1e-6)[0])
    x, residual = _random(9, 48, seed=3), _random(9, 48, seed=4)
    normed, total = gpu.add_rms_norm(x, residual, _random(48), 1e-6)
    assert torch.equal(total, x + residual)
    assert torch.equal(normed, gpu.rms_norm(total, _random(48), 1e-6)[0])
    gate, up = qkv.chunk(2, -1)
    assert torch.equal(gpu.silu_and_mul(gate, up), gpu.silu_and_mul(gate.contiguous(), up.contiguous()))


def _short(*shape, seed=0):
    """Numbers that bf16 represents exactly, because the interpreter truncates others where a GPU rounds them."""
    return _random(*shape, seed=seed).bfloat16().float()


def test_keyed_sums_are_the_cpus():
    narrow, wide = torch.bfloat16, torch.float32
    shapes = (
        (5, 700, narrow, narrow),
        (9, 1, wide, wide),
        (0, 3, narrow, narrow),
        (9, 5000, wide, narrow),
        (9, 6000, narrow, narrow),
    )
    parts = [(_short(rows, width, seed=width).to(dtype), rounded) for rows, width, dtype, rounded in shapes]
    found = gpu.keyed_sums([Rectangle(*part, 7, 11, 6000) for part in parts])
    assert torch.equal(found, keyed_sums([Rectangle(*part, 7, 11, 6000) for part in parts]))
    moved = gpu.keyed_sums([Rectangle(*part, 7, 12, 6000) for part in parts])
    assert (moved != found).tolist() == [True, True, False, True, True]


def test_copies_are_the_cpus():
    """Rows, columns, vectors, odd sizes and addresses, and some copies that are longer than a program's span."""
    values = [_short(3, 64), _short(40, 1000, seed=1), _short(17, seed=2), _short(2, 7, seed=3).bfloat16()]
    pairs = []
    for dtype in (torch.bfloat16, torch.float32):
        for v in values[:3]:
            pairs.append((torch.zeros(v.shape, dtype=dtype), v))
        pairs.append((torch.zeros(40, 512, dtype=dtype), values[1][:, 8:520]))
        pairs.append((torch.zeros(50, 200, dtype=dtype)[5:45, 40:64], values[1][:, 3:27]))
        pairs.append((torch.zeros(32, dtype=dtype)[3:20], values[2]))
    pairs.append((torch.zeros(2, 7, dtype=torch.bfloat16), values[3]))
    pairs.append((torch.zeros(0, 8, dtype=torch.bfloat16), values[0][:0, :8]))
    for launch in gpu.copy_launches(pairs):
        launch()
    assert all(torch.equal(into, source.to(into.dtype)) for into, source in pairs)
    base = pairs[4][0]._base
    base[5:45, 40:64] = 0
    assert not base.any()  # nothing beside the target is written
