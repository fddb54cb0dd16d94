"""In a prefix tree attention, and a whole policy, give the bits of separate sequences."""

import math
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen3Config

from rlsync.config.kernels import KernelMode
from rlsync.kernels import ops
from rlsync.kernels.attention_spec import AttentionSpec
from rlsync.kernels.row_ops import sum_rows
from rlsync.models.policy import Policy
from rlsync.samples import FinishReason, Rollout, TrainSample
from rlsync.trainer import prefix_tree
from rlsync.trainer.packing import pack_samples
from rlsync.trainer.prefix_tree import lay_as_tree


def _sequences(prompt, answers):
    """Answers to one prompt, one of which has a further branch, and a separate sequence."""
    begin = torch.arange(prompt)
    own = [torch.cat((begin, 10**6 * (i + 1) + torch.arange(n))) for i, n in enumerate(answers)]
    branch = torch.cat((own[0][: prompt + answers[0] // 2], torch.arange(70)))
    return [*own, branch, 10**8 + torch.arange(150)]


def _random(rows, heads, dim, seed):
    g = torch.Generator("cuda").manual_seed(seed)
    return torch.randn(rows, heads, dim, generator=g, device="cuda").to(torch.bfloat16)


def _tree(sequences, heads, kv_heads, dim):
    layout = lay_as_tree(sequences)
    qkv = [_random(layout.tokens.numel(), h, dim, s) for s, h in enumerate((heads, kv_heads, kv_heads))]
    rest = {"starts": layout.starts.cuda(), "paths": layout.paths.to(torch.device("cuda"))}
    return layout, qkv, rest | {"longest": int(layout.starts.diff().max()), "scale": 1 / math.sqrt(dim)}


@pytest.mark.parametrize(
    ("heads", "kv_heads", "dim", "window", "prompt"),
    [(16, 8, 128, 0, 1024), (8, 2, 64, 0, 1500), (16, 8, 128, 700, 2100), (14, 2, 64, 0, 63), (4, 4, 256, 0, 1),
     (8, 1, 128, 25, 130)],
)  # fmt: skip
def test_rows_are_those_of_sequences_apart(heads, kv_heads, dim, window, prompt):
    layout, qkv, rest = _tree(_sequences(prompt, [64, 1, 200, 33, 64]), heads, kv_heads, dim)
    tree = ops.attention(*qkv, AttentionSpec(window=window, **rest))
    for rows in layout.rows:
        at = rows.cuda()
        starts = torch.tensor([0, len(rows)], device="cuda")
        spec = AttentionSpec(starts=starts, scale=rest["scale"], window=window)
        alone = ops.attention(*(t[at] for t in qkv), spec)
        assert torch.equal(tree[at], alone)
    off = replace(rest["paths"], table=(rest["paths"].table - 1).clamp_min(0))
    wrong = ops.attention(*qkv, AttentionSpec(window=window, **(rest | {"paths": off})))
    assert not torch.equal(wrong, tree)  # the control


@pytest.mark.parametrize("window", [0, 100])
@pytest.mark.parametrize("chunk", [512, 32768])
def test_values_and_gradients(window, chunk, monkeypatch):
    monkeypatch.setattr(prefix_tree, "_CHUNK_KEYS", chunk)
    heads, kv_heads, dim = 8, 4, 128
    layout, qkv, rest = _tree(_sequences(300, [64, 1, 200]), heads, kv_heads, dim)
    tensors = [t.requires_grad_() for t in qkv]
    grad = _random(layout.tokens.numel(), heads, dim, 9)
    out = ops.attention(*tensors, AttentionSpec(window=window, **rest))
    grads = torch.autograd.grad(out, tensors, grad, retain_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(grads, torch.autograd.grad(out, tensors, grad), strict=True))

    wide = [t.detach().double().requires_grad_() for t in tensors]
    expected = torch.zeros_like(wide[0])
    for path in layout.rows:
        rows = path.cuda()
        q, k, v = (t[rows] for t in wide)
        k, v = (t.repeat_interleave(heads // kv_heads, 1) for t in (k, v))
        distance = torch.arange(len(q), device="cuda")[:, None] - torch.arange(len(q), device="cuda")
        hidden = (distance < 0) | (distance >= (window or len(q)))
        scores = (torch.einsum("qhd,khd->hqk", q, k) * rest["scale"]).masked_fill(hidden, -math.inf)
        expected = expected.index_copy(0, rows, torch.einsum("hqk,khd->qhd", scores.softmax(-1), v))
    exact = torch.autograd.grad(expected, wide, grad.double())
    for mine, right in zip((out, *grads), (expected, *exact), strict=True):
        assert (mine.double() - right).norm() < 5e-3 * right.norm()


def test_rows_are_summed_alike_in_every_run():
    g = torch.Generator("cuda").manual_seed(0)
    values = torch.randn(20000, 64, generator=g, device="cuda")
    index = torch.randint(0, 50, (20000,), generator=g, device="cuda")
    first = sum_rows(values, index, 50)
    assert all(torch.equal(sum_rows(values, index, 50), first) for _ in range(5))
    exact = torch.zeros(50, 64, dtype=torch.float64).index_add_(0, index.cpu(), values.double().cpu())
    torch.testing.assert_close(first.double().cpu(), exact, rtol=1e-4, atol=1e-3)


@pytest.fixture(scope="module")
def policy():
    config = Qwen3Config(
        vocab_size=2000, hidden_size=256, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=64, intermediate_size=512, tie_word_embeddings=True, architectures=["Qwen3ForCausalLM"],
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    return Policy(model, mode=KernelMode.invariant, leaves=8, dtype=torch.bfloat16, temperature=0.9).cuda()


def _samples():
    samples = []
    for seed, tokens in enumerate(_sequences(400, [64, 1, 200])):
        n = tokens.numel()
        sampled = torch.arange(n) >= 100
        rollout = Rollout(
            tokens=tokens % 1999, sampled=sampled, logprobs=torch.zeros(n), seed=seed, finish_reason=FinishReason.stop,
            weight_version=torch.where(sampled, 0, -1).int(),
        )  # fmt: skip
        samples.append(TrainSample(rollout=rollout, advantage=torch.ones(rollout.tokens.numel())))
    return samples


def test_a_policy_on_a_tree(policy):
    samples, device = _samples(), torch.device("cuda")
    pack = pack_samples(samples, list(range(len(samples))), share_prefixes=True).to(device)
    assert pack.paths is not None
    with torch.no_grad():
        tree = policy(pack, redraw=True)
        alone = [policy(pack_samples([s], [0]).to(device), redraw=True) for s in samples]
        other = policy(replace(pack, positions=(pack.positions - 1).clamp_min(0)), redraw=True)
    for name in ("logprobs", "entropy", "draws"):
        assert torch.equal(getattr(tree, name), torch.cat([getattr(output, name) for output in alone]))
    assert not torch.equal(other.logprobs, tree.logprobs)  # the control


def test_the_gradient_of_a_policy(policy):
    """The gradient of a row is rounded to bf16, that of a shared row after its sum, so separate samples differ."""
    samples, device = _samples(), torch.device("cuda")
    grads = []
    for trees in (True, False):
        policy.zero_grad()
        pack = pack_samples(samples, list(range(len(samples))), share_prefixes=trees).to(device)
        policy(pack).logprobs.sum().backward()
        grads.append(torch.cat([p.grad.double().flatten() for p in policy.parameters()]))
    tree, apart = grads
    assert (tree - apart).norm() < 2e-2 * apart.norm()
