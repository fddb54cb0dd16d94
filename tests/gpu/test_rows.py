"""RMSNorm, the gated activation, log-probs and the draw: independence of rows, values, and the draws of the CPU."""

import pytest
import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from rlsync.kernels import ops
from rlsync.kernels.rope import RopeSpec, rope_table
from rlsync.weight_sync.digest import Digester, Part


def _rows(t, w, dtype, seed=0):
    return torch.randn(t, w, generator=torch.Generator("cuda").manual_seed(seed), device="cuda").mul(3).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [128, 896, 4096, 5120])
def test_a_row_does_not_know_the_others(dtype, width):
    x = _rows(257, width, dtype)
    calls = (
        lambda r: ops.rms_norm(r, x[0], 1e-6),
        lambda r: ops.silu_and_mul(r, r),
        lambda r: ops.logprobs(r.float(), 0.7),
    )
    for call in calls:
        whole = call(x)
        for rows in (slice(0, 1), slice(7, 9), slice(130, 257)):
            assert torch.equal(call(x[rows]), whole[rows])
    assert not torch.equal(ops.rms_norm(x[1:2], x[0], 1e-6), ops.rms_norm(x[2:3], x[0], 1e-6))  # the control


def test_values():
    x = _rows(20, 4096, torch.float32)
    torch.testing.assert_close(ops.rms_norm(x, x[0], 1e-6), torch.nn.functional.rms_norm(x, (4096,), x[0], 1e-6))
    torch.testing.assert_close(ops.silu_and_mul(x, x), torch.nn.functional.silu(x) * x)
    torch.testing.assert_close(ops.logprobs(x, 0.7), torch.log_softmax(x / 0.7, -1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dim", [64, 128])
def test_rope_is_transformers_own_order(dtype, dim):
    """vLLM rotates slices of one projection in one kernel, and the trainer uses the PyTorch ops of Hugging Face."""
    table = rope_table(RopeSpec(dim, 1e6, 4096), dtype).cuda()
    q, k = _rows(300, 24 * dim, dtype).split([16 * dim, 8 * dim], -1)
    q, k = q.view(300, 16, dim), k.view(300, 8, dim)
    positions = torch.randint(0, 4096, (300,), device="cuda")
    cos, sin = (torch.cat((t, t), -1)[None] for t in table[positions].chunk(2, -1))
    theirs = apply_rotary_pos_emb(q.transpose(0, 1)[None], k.transpose(0, 1)[None], cos, sin)
    for mine, other in zip(ops.rope(q, k, table, positions), theirs, strict=True):
        assert torch.equal(mine, other[0].transpose(0, 1))
    assert not torch.equal(ops.rope(q, k, table, positions.flip(0))[0], theirs[0][0].transpose(0, 1))  # the control


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [896, 4096, 9000])
def test_fused_and_strided_rows(dtype, width):
    x, residual = _rows(257, width, dtype), _rows(257, width, dtype, seed=1)
    normed, total = ops.add_rms_norm(x, residual, x[0], 1e-6)
    assert torch.equal(total, x + residual)
    assert torch.equal(normed, ops.rms_norm(x + residual, x[0], 1e-6))
    assert not torch.equal(normed, ops.rms_norm(x, x[0], 1e-6))  # the control
    both = torch.cat((x, residual), -1)
    gate, up = both.chunk(2, -1)
    assert torch.equal(ops.silu_and_mul(gate, up), ops.silu_and_mul(x, residual))
    assert torch.equal(ops.rms_norm(up[:, None], x[0], 1e-6)[:, 0], ops.rms_norm(residual, x[0], 1e-6))


def test_cache_writes():
    k, v = _rows(9, 256, torch.bfloat16).view(9, 2, 128), _rows(9, 256, torch.bfloat16, seed=1).view(9, 2, 128)
    cache = torch.zeros(4, 16, 2, 256, dtype=torch.bfloat16, device="cuda").transpose(1, 2)
    slots = torch.tensor([3, 0, 17, -1, 63, 40, -1, 4, 5], device="cuda")
    ops.write_cache(k, v, cache, slots)
    rows = cache.transpose(1, 2).reshape(64, 2, 256)
    kept = slots >= 0
    assert torch.equal(rows[slots[kept]], torch.cat((k, v), -1)[kept])
    assert rows.abs().sum(dtype=torch.float64) == torch.cat((k, v), -1)[kept].abs().sum(dtype=torch.float64)


def test_draws_follow_the_distribution_and_repeat():
    row = torch.log_softmax(_rows(1, 16, torch.float32) / 3, -1)
    rows = row.expand(20000, -1).contiguous()
    seeds, positions = torch.arange(20000, device="cuda"), torch.zeros(20000, dtype=torch.int64, device="cuda")
    drawn = ops.draw(rows, seeds, positions)
    assert torch.equal(drawn, ops.draw(rows, seeds, positions))
    assert not torch.equal(drawn, ops.draw(rows, seeds, positions + 1))
    share = torch.bincount(drawn, minlength=16) / 20000
    assert (share - row[0].exp()).abs().max() < 0.02


def _digests(parts):
    digester = Digester()
    digester.add(
        [
            Part(name=str(i), values=part, row=1 << 20, column=3, columns=1 if part.ndim == 1 else 5000)
            for i, part in enumerate(parts)
        ]
    )
    return digester.digests()


def test_digests_are_the_cpus():
    weights = _rows(300, 4100, torch.bfloat16)
    parts = (weights, weights[3:17, 5:1000], weights[:, 0], weights.float())
    found = _digests(parts)
    assert found == _digests([part.cpu() for part in parts])
    others = [part.clone() for part in parts]
    for other in others:
        other[-1] = -other[-1]
    assert all(digest != other for digest, other in zip(found, _digests(others), strict=True))
