"""The scores kernels in Triton's interpreter have the bits of its log-probs and draws, and the right gradient."""

import importlib

import pytest
import torch
import triton
import triton.language as tl

from rlsync.kernels import cpu, scores
from rlsync.kernels import triton as gpu
from rlsync.kernels.triton.sampling import gumbel_of_bits

T, V = 9, 100
TEMPERATURE = 0.7


def _module(name):
    return importlib.import_module(f"rlsync.kernels.triton.{name}")


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch):
    sizes = {"logprobs": {"TILE": 32, "CHUNK": 64}, "scores": {"TILE": 32}, "sampling": {"TILE": 16, "CHUNK": 32}}
    for module, values in sizes.items():
        for name, value in values.items():
            monkeypatch.setattr(_module(module), name, value)


def _random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _inputs():
    logits = _random(T, V) * 3
    logits[4, 7] = -torch.inf
    return logits, (torch.arange(T) * 31) % V, torch.arange(T) * 2**40 + 7, torch.arange(T)


@pytest.mark.parametrize("draws", [False, True])
def test_row_scores_are_the_bits_of_logprobs_and_draw(draws, monkeypatch):
    logits, targets, seeds, positions = _inputs()
    rows = gpu.logprobs(logits, TEMPERATURE)
    keys = (seeds, positions) if draws else (None, None)
    logprobs, entropy, stats, digests, drawn = gpu.row_scores(logits, TEMPERATURE, targets, *keys)
    assert torch.equal(logprobs, rows.gather(-1, targets[:, None])[:, 0])
    assert torch.equal(stats[:, 0], logits.amax(-1) / TEMPERATURE)
    assert torch.equal(digests, cpu.row_digests(logits))
    assert (torch.equal(drawn, gpu.draw(rows, seeds, positions))) if draws else drawn is None
    wide = torch.log_softmax(logits.double() / TEMPERATURE, -1)
    expected = -(wide.exp() * wide.clamp_min(-1e30)).sum(-1)
    torch.testing.assert_close(entropy.double(), expected, rtol=1e-5, atol=1e-5)
    monkeypatch.setattr(_module("logprobs"), "TILE", 8)
    monkeypatch.setattr(_module("logprobs"), "CHUNK", 16)
    other = gpu.row_scores(logits, TEMPERATURE, targets, None, None)
    assert not torch.equal(other.logprobs, logprobs)  # the control: other chunks, another order
    assert torch.equal(other.digests, digests)  # a sum of integers, whose order is free


def test_logit_grads():
    logits, targets, _, _ = _inputs()
    grad = _random(T, seed=2)
    stats = gpu.row_scores(logits, TEMPERATURE, targets, None, None)[2]
    wide = logits.double().requires_grad_()
    chosen = torch.log_softmax(wide / TEMPERATURE, -1).gather(-1, targets[:, None])[:, 0]
    (expected,) = torch.autograd.grad(chosen, wide, grad.double())
    got = gpu.logit_grads(logits, TEMPERATURE, targets, stats, grad, torch.float32)
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-6)


def test_logit_grads_of_entropy():
    logits, targets, _, _ = _inputs()
    grad, pull = _random(T, seed=2), _random(T, seed=3)
    _, entropy, stats, *_ = gpu.row_scores(logits, TEMPERATURE, targets, None, None)
    finite = logits.double().clamp_min(-1e4).requires_grad_()  # exp is 0 there, so autograd gives no NaN
    rows = torch.log_softmax(finite / TEMPERATURE, -1)
    outputs = [rows.gather(-1, targets[:, None])[:, 0], -(rows.exp() * rows).sum(-1)]
    (expected,) = torch.autograd.grad(outputs, finite, [grad.double(), pull.double()])
    got = gpu.logit_grads(logits, TEMPERATURE, targets, stats, grad, torch.float32, entropy, pull)
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-6)
    plain = gpu.logit_grads(logits, TEMPERATURE, targets, stats, grad, torch.float32)
    assert (plain.double() - expected).abs().max() > 1e-2  # the control


def test_the_whole_function(monkeypatch):
    monkeypatch.setattr(scores, "backend", lambda _: gpu)
    monkeypatch.setattr(scores, "_MAX_ROWS", 4)
    _, targets, seeds, positions = _inputs()
    leaves = [_random(T, 32).requires_grad_(), _random(V, 32, seed=1).requires_grad_()]
    logprobs, _, _, draws = scores.target_scores(*leaves, targets, TEMPERATURE, seeds=seeds, positions=positions)
    rows = gpu.logprobs(gpu.matmul(*(t.detach() for t in leaves), None, 1, torch.float32), TEMPERATURE)
    assert torch.equal(logprobs, rows.gather(-1, targets[:, None])[:, 0])
    assert torch.equal(draws, gpu.draw(rows, seeds, positions))
    wide = [t.detach().double().requires_grad_() for t in leaves]
    reference = torch.log_softmax(wide[0] @ wide[1].t() / TEMPERATURE, -1).gather(-1, targets[:, None])[:, 0]
    for got, expected in zip(
        torch.autograd.grad(logprobs.sum(), leaves), torch.autograd.grad(reference.sum(), wide), strict=True
    ):
        torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-5)


def test_the_noise_is_right_to_the_ends():
    """Every uint32 gives finite noise that equals the noise in fp64 up to the rounding of fp32."""
    dense = torch.arange(-512, 512)
    sampled = (torch.arange(2**14) * 2654435761) % 2**32
    bits = torch.cat((dense, dense + 2**31, dense + 2**24, 2**32 - 2**24 + dense, sampled)) % 2**32
    out = torch.empty(bits.numel())
    _noise_kernel[(1,)](bits, out, bits.numel(), SIZE=triton.next_power_of_2(bits.numel()))
    u = (bits.double() + 0.5) * 2.0**-32
    expected = -torch.log(-torch.log(u))
    difference = out.double() - expected
    assert difference.abs().max() < 1.2e-6  # half an ulp of the largest, 22.9, is 0.95e-6
    assert difference[-sampled.numel() :].mean().abs() < 1e-8
    naive = -torch.log(-torch.log(u.float()))
    assert not naive.isfinite().all()  # the control


@triton.jit
def _noise_kernel(bits, out, size, SIZE: tl.constexpr):  # noqa: N803
    at = tl.arange(0, SIZE)
    values = tl.load(bits + at, mask=at < size, other=0).to(tl.uint32)
    tl.store(out + at, gumbel_of_bits(values), mask=at < size)
