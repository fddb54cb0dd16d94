"""Scores of targets with a real vocabulary: bits of log-probs and draws, the gradient, and the memory."""

import pytest
import torch

from rlsync.kernels import ops, scores
from rlsync.kernels.row_keys import HIGH, HIGH_SHIFT, LOW, LOW_SHIFT
from rlsync.kernels.scores import target_scores

ROWS, WIDTH, VOCABULARY = 300, 1024, 151_936
TEMPERATURE = 0.7


def _random(*shape, seed=0, dtype=torch.bfloat16):
    return torch.randn(*shape, generator=torch.Generator("cuda").manual_seed(seed), device="cuda").to(dtype)


def _inputs(rows=ROWS, width=WIDTH, dtype=torch.bfloat16):
    weight = _random(VOCABULARY, width, seed=1) * (4 / width**0.5)
    targets = (torch.arange(rows, device="cuda") * 7919) % VOCABULARY
    return _random(rows, width).to(dtype), weight.to(dtype), targets


def _keys(rows=ROWS):
    numbers = torch.arange(rows, device="cuda")
    return {"seeds": numbers * 2**40 + 7, "positions": numbers}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [7, 128, 8192])
def test_the_bits_are_those_of_the_ops(dtype, rows, monkeypatch):
    monkeypatch.setattr(scores, "_MAX_ROWS", rows)
    hidden, weight, targets = _inputs(dtype=dtype)
    matrix = ops.logprobs(ops.lm_head(hidden, weight), TEMPERATURE)
    logprobs, entropy, digests, draws = target_scores(hidden, weight, targets, TEMPERATURE, **_keys())
    assert torch.equal(logprobs, matrix.gather(-1, targets[:, None])[:, 0])
    assert torch.equal(draws, ops.draw(matrix, *_keys().values()))
    assert torch.equal(digests, ops.row_digests(ops.lm_head(hidden, weight)))
    torch.testing.assert_close(entropy, -(matrix.exp() * matrix).sum(-1), rtol=1e-4, atol=1e-4)
    some = slice(5, 9)
    assert torch.equal(target_scores(hidden[some], weight, targets[some], TEMPERATURE)[0], logprobs[some])
    assert not torch.equal(target_scores(hidden, weight, targets, 0.8)[0], logprobs)  # the control
    later = _keys() | {"positions": _keys()["positions"] + 1}
    assert not torch.equal(target_scores(hidden, weight, targets, TEMPERATURE, **later).draws, draws)  # the control


def reference_digests(logits):
    """The digests of rows, in PyTorch's 64-bit integers."""
    token, mask = torch.arange(logits.shape[1], device="cuda"), 0xFFFFFFFF
    low, high = (token * LOW) & mask, (token * HIGH) & mask
    low, high = (low ^ (low >> LOW_SHIFT)) | 1, high ^ (high >> HIGH_SHIFT)
    return ((logits.view(torch.int32).long() & mask) * (low + (high << 32))).sum(-1)


@pytest.mark.parametrize("size", [151_936, 50_257, 1000])
def test_row_scores_are_the_bits_of_logprobs_and_draw(size):
    """Sizes that Triton compiles separately: divisible by 16 or not, and shorter than a tile."""
    logits = _random(65, size, dtype=torch.float32) * 4
    targets, keys = torch.arange(65, device="cuda") * 3, _keys(65).values()
    rows = ops.logprobs(logits, TEMPERATURE)
    logprobs, _, _, digests, draws = ops.backend(logits).row_scores(logits, TEMPERATURE, targets, *keys)
    assert torch.equal(logprobs, rows.gather(-1, targets[:, None])[:, 0])
    assert torch.equal(draws, ops.draw(rows, *keys))
    tokens, drawn, again = ops.draw_scored(logits, TEMPERATURE, *keys)
    assert torch.equal(tokens, draws)
    assert torch.equal(drawn, rows.gather(-1, draws[:, None])[:, 0])
    assert torch.equal(digests, again)
    assert torch.equal(digests, reference_digests(logits))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 5e-3)])
@pytest.mark.parametrize("rows", [128, 8192])
def test_gradients(dtype, tolerance, rows, monkeypatch):
    monkeypatch.setattr(scores, "_MAX_ROWS", rows)
    hidden, weight, targets = _inputs(dtype=dtype)
    grad = _random(ROWS, seed=2, dtype=torch.float32)
    leaves = [hidden.requires_grad_(), weight.requires_grad_()]

    def gradients():
        return torch.autograd.grad(target_scores(*leaves, targets, TEMPERATURE)[0], leaves, grad)

    wide = [t.detach().double().requires_grad_() for t in leaves]
    chosen = torch.log_softmax(wide[0] @ wide[1].t() / TEMPERATURE, -1).gather(-1, targets[:, None])[:, 0]
    expected = torch.autograd.grad(chosen, wide, grad.double())
    got = gradients()
    for g, e in zip(got, expected, strict=True):
        assert g.dtype == dtype
        assert (g.double() - e).norm() < tolerance * e.norm()
    assert all(torch.equal(a, b) for a, b in zip(got, gradients(), strict=True))


def test_the_matrix_never_exists():
    rows = 4096
    hidden, weight, targets = _inputs(rows, 128)
    leaves = [hidden.requires_grad_(), weight.requires_grad_()]
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    target_scores(*leaves, targets, TEMPERATURE)[0].sum().backward()
    assert torch.cuda.max_memory_allocated() - before < rows * VOCABULARY * 4 / 2
