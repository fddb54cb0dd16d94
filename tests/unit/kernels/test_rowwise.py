"""RMSNorm, SiLU, log-probs, rope, embedding and sampling: independence of rows, values and gradients."""

import hashlib

import pytest
import torch
from transformers import LlamaConfig, Qwen3Config
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from rlsync.errors import ConfigError
from rlsync.kernels import ops
from rlsync.kernels.fingerprint import _probe, fingerprint
from rlsync.kernels.rope import RopeSpec, rope_table, spec_from_config

GOLDEN = "7574ab99ff5e04ba"


def _rows(t, w, dtype=torch.float32, seed=0):
    return torch.randn(t, w, generator=torch.Generator().manual_seed(seed)).mul(3).to(dtype)


def test_the_probe_gives_the_same_bits_on_every_machine():
    assert hashlib.sha256(_probe("cpu")).hexdigest()[:16] == GOLDEN


def test_fingerprint_depends_on_each_setting():
    base = {"leaves": 8, "row_parallel": "tree", "temperature": 1.0, "dtype": "bfloat16", "device": "cpu"}
    others = [{"leaves": 4}, {"row_parallel": "gather"}, {"temperature": 0.9}, {"dtype": "float32"}]
    prints = {fingerprint(**base), *(fingerprint(**(base | other)) for other in others)}
    assert len(prints) == 1 + len(others)
    assert fingerprint(**base) == fingerprint(**base)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("op", ["norm", "silu", "logprobs"])
def test_a_row_does_not_know_the_others(op, dtype):
    x = _rows(33, 50, dtype)
    calls = {
        "norm": lambda r: ops.rms_norm(r, x[0], 1e-6),
        "silu": lambda r: ops.silu_and_mul(r, r),
        "logprobs": lambda r: ops.logprobs(r.float(), 0.7),
    }
    whole = calls[op](x)
    for rows in (slice(0, 1), slice(7, 9), slice(30, 33)):
        assert torch.equal(calls[op](x[rows]), whole[rows])


def test_values():
    x = _rows(20, 50)
    torch.testing.assert_close(ops.rms_norm(x, x[0], 1e-6), torch.nn.functional.rms_norm(x, (50,), x[0], 1e-6))
    torch.testing.assert_close(ops.silu_and_mul(x, x), torch.nn.functional.silu(x) * x)
    torch.testing.assert_close(ops.logprobs(x, 0.7), torch.log_softmax(x / 0.7, -1))


def test_temperature_divides():
    x = _rows(50, 64)
    assert torch.equal(ops.logprobs(x, 0.7), ops.logprobs(x / 0.7, 1.0))
    assert not torch.equal(ops.logprobs(x, 0.7), ops.logprobs(x * (1 / 0.7), 1.0))  # the control


def test_non_finite_logits_stay_visible():
    x = _rows(2, 8)
    x[1, 3] = float("nan")
    out = ops.logprobs(x, 1.0)
    assert out[0].isfinite().all()
    assert out[1].isnan().all()


@pytest.mark.parametrize(
    ("mine", "reference"),
    [
        (lambda x, y: ops.rms_norm(x, y[0], 1e-6), lambda x, y: torch.nn.functional.rms_norm(x, (10,), y[0], 1e-6)),
        (ops.silu_and_mul, lambda x, y: torch.nn.functional.silu(x) * y),
        (lambda x, y: ops.logprobs(x, 0.7) * y, lambda x, y: torch.log_softmax(x / 0.7, -1) * y),
    ],
)
def test_gradients(mine, reference):
    x, y, grad = _rows(6, 10), _rows(6, 10, seed=1), _rows(6, 10, seed=2)
    a = [t.clone().requires_grad_() for t in (x, y)]
    b = [t.double().requires_grad_() for t in (x, y)]
    got = torch.autograd.grad(mine(*a), a, grad)
    for g, r in zip(got, torch.autograd.grad(reference(*b), b, grad.double()), strict=True):
        torch.testing.assert_close(g.double(), r, rtol=1e-4, atol=1e-4)


def test_embedding_has_no_negative_zero():
    w = torch.tensor([[-0.0, 1.0]])
    assert not ops.embedding(torch.tensor([0]), w).signbit().any()


def test_rope_table_is_hugging_faces_function():
    scaling = {
        "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }  # fmt: skip
    config = LlamaConfig(hidden_size=64, num_attention_heads=2, max_position_embeddings=128, rope_parameters=scaling)
    cos, sin = LlamaRotaryEmbedding(config)(torch.zeros(1), torch.arange(128)[None])
    mine = rope_table(spec_from_config(config.rope_parameters, 32, 128), torch.float32)
    torch.testing.assert_close(mine, torch.cat((cos[0, :, :16], sin[0, :, :16]), -1), rtol=1e-4, atol=1e-4)


def test_rope_turns_by_position():
    table = rope_table(RopeSpec(8, 100.0, 10), torch.float32)
    x, positions = torch.randn(10, 3, 8), torch.arange(10)
    turned, keys = ops.rope(x, x[:, :1], table, positions)
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(turned[0], x[0])
    assert torch.equal(keys, turned[:, :1])
    assert torch.equal(ops.rope(x[4:5], x[4:5], table, positions[4:5])[0], turned[4:5])
    assert not torch.equal(ops.rope(x[4:5], x[4:5], table, positions[5:6])[0], turned[4:5])  # the control


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rope_and_the_fused_norm_are_transformers_own_order(dtype):
    """The trainer rotates and adds residuals with Hugging Face's own code, and the fused ops give the same bits."""
    table = rope_table(RopeSpec(16, 100.0, 10), dtype)
    q, k = _rows(10, 64, dtype).view(10, 4, 16), _rows(10, 32, dtype, seed=1).view(10, 2, 16)
    cos, sin = (torch.cat((t, t), -1)[None] for t in table.chunk(2, -1))
    expected = apply_rotary_pos_emb(q.transpose(0, 1)[None], k.transpose(0, 1)[None], cos, sin)
    for mine, theirs in zip(ops.rope(q, k, table, torch.arange(10)), expected, strict=True):
        assert torch.equal(mine, theirs[0].transpose(0, 1))
    x, residual = _rows(10, 64, dtype), _rows(10, 64, dtype, seed=1)
    normed, total = ops.add_rms_norm(x, residual, x[0], 1e-6)
    assert torch.equal(total, x + residual)
    assert torch.equal(normed, ops.rms_norm(x + residual, x[0], 1e-6))
    assert not torch.equal(normed, ops.rms_norm(x, x[0], 1e-6))  # the control


def test_dynamic_rope_is_refused():
    config = Qwen3Config(rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0})
    with pytest.raises(ConfigError, match="rope_type=dynamic"):
        spec_from_config(config.rope_parameters, 32, 64)


def test_draws_are_pure_and_follow_the_distribution():
    row = ops.logprobs(_rows(1, 6), 1.0).expand(40_000, 6).contiguous()
    seeds, positions = torch.arange(40_000), torch.zeros(40_000, dtype=torch.int64)
    drawn = ops.draw(row, seeds, positions)
    share = torch.bincount(drawn, minlength=6) / 40_000
    torch.testing.assert_close(share, row[0].exp(), atol=0.01, rtol=0)
    assert torch.equal(ops.draw(row[5:9], seeds[5:9], positions[5:9]), drawn[5:9])
    assert not torch.equal(ops.draw(row, seeds, positions + 1), drawn)  # the control: another position


def test_greedy_takes_the_lower_of_a_tie():
    assert ops.greedy(torch.tensor([[0.0, 2.0, 2.0]])).tolist() == [1]
