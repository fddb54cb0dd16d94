"""Scores of targets, computed in chunks, have the bits of the ops that they replace, and the right gradient."""

import weakref

import pytest
import torch

from rlsync.kernels import ops, scores
from rlsync.kernels.scores import target_scores

ROWS, WIDTH, VOCABULARY = 37, 24, 91
TEMPERATURE = 0.7


def _random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def _inputs(dtype=torch.float32):
    hidden, weight = _random(ROWS, WIDTH, dtype=dtype), _random(VOCABULARY, WIDTH, seed=1, dtype=dtype)
    return hidden, weight, (torch.arange(ROWS) * 29) % VOCABULARY


def _keys():
    return {"seeds": torch.arange(ROWS) * 2**40 + 7, "positions": torch.arange(ROWS)}


def _reference(hidden, weight, targets):
    """Log-probs and gradients of their weighted sum, in fp64."""
    wide = [t.detach().double().requires_grad_() for t in (hidden, weight)]
    rows = torch.log_softmax(wide[0] @ wide[1].t() / TEMPERATURE, -1)
    chosen = rows.gather(-1, targets[:, None])[:, 0]
    return rows.detach(), torch.autograd.grad(chosen, wide, _random(ROWS, seed=2).double())


def _gradients(hidden, weight, targets):
    leaves = [t.detach().clone().requires_grad_() for t in (hidden, weight)]
    return torch.autograd.grad(target_scores(*leaves, targets, TEMPERATURE)[0], leaves, _random(ROWS, seed=2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 5, ROWS - 1, ROWS, 8192])
def test_the_bits_are_those_of_the_ops(dtype, rows, monkeypatch):
    monkeypatch.setattr(scores, "_MAX_ROWS", rows)
    hidden, weight, targets = _inputs(dtype)
    matrix = ops.logprobs(ops.lm_head(hidden, weight), TEMPERATURE)
    logprobs, _, digests, draws = target_scores(hidden, weight, targets, TEMPERATURE, **_keys())
    expected = matrix.gather(-1, targets[:, None])[:, 0]
    assert torch.equal(logprobs, expected)
    assert torch.equal(draws, ops.draw(matrix, *_keys().values()))
    assert torch.equal(digests, ops.row_digests(ops.lm_head(hidden, weight)))
    library = torch.log_softmax(hidden.float() @ weight.float().t() / TEMPERATURE, -1)
    assert not torch.equal(library.gather(-1, targets[:, None])[:, 0], expected)  # the control: another order
    later = _keys() | {"positions": _keys()["positions"] + 1}
    assert not torch.equal(target_scores(hidden, weight, targets, TEMPERATURE, **later).draws, draws)  # the control


def test_one_chunk_exists_at_a_time(monkeypatch):
    sizes, made = [], []
    original = scores._logits

    def spy(hidden, weight):
        assert all(logits() is None for logits in made)
        logits = original(hidden, weight)
        made.append(weakref.ref(logits))
        sizes.append(hidden.shape[0])
        return logits

    monkeypatch.setattr(scores, "_logits", spy)
    monkeypatch.setattr(scores, "_CHUNK_BYTES", 10 * 4 * VOCABULARY)
    _gradients(*_inputs())
    assert sizes == [10, 10, 10, 7] * 2


@pytest.mark.parametrize(("vocabulary", "rows"), [(151_936, 768), (32_000, 4096), (259, 8192), (2**28, 1)])
def test_a_chunk_is_bounded(vocabulary, rows):
    hidden, weight = torch.empty(10_000, 1, device="meta"), torch.empty(vocabulary, 1, device="meta")
    sizes = [s.stop - s.start for s in scores._chunks(hidden, weight)]
    assert max(sizes) == rows
    assert sum(sizes) == 10_000


@pytest.mark.parametrize("rows", [4, 8192])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_gradients(dtype, tolerance, rows, monkeypatch):
    monkeypatch.setattr(scores, "_MAX_ROWS", rows)
    inputs = _inputs(dtype)
    got, (_, expected) = _gradients(*inputs), _reference(*inputs)
    for g, e in zip(got, expected, strict=True):
        assert g.dtype == dtype
        torch.testing.assert_close(g.double(), e, rtol=tolerance, atol=tolerance)
    assert all(torch.equal(a, b) for a, b in zip(got, _gradients(*inputs), strict=True))
    shifted = _gradients(inputs[0], inputs[1], inputs[2].roll(1))
    assert (shifted[0].double() - expected[0]).abs().max() > 0.1  # the control: another row's targets


def test_a_frozen_weight_gets_no_gradient():
    hidden, weight, targets = _inputs()
    hidden.requires_grad_()
    target_scores(hidden, weight, targets, TEMPERATURE)[0].sum().backward()
    assert hidden.grad is not None
    assert weight.grad is None


def _entropy(rows):
    return -(rows.exp() * rows).sum(-1)


def test_entropy():
    hidden, weight, targets = _inputs()
    _, entropy, _, draws = target_scores(hidden, weight, targets, TEMPERATURE)
    rows, _ = _reference(hidden, weight, targets)
    torch.testing.assert_close(entropy.double(), _entropy(rows), rtol=1e-5, atol=1e-5)
    assert draws is None


@pytest.mark.parametrize("rows", [4, 8192])
@pytest.mark.parametrize("with_logprobs", [False, True])
def test_gradients_of_entropy(with_logprobs, rows, monkeypatch):
    monkeypatch.setattr(scores, "_MAX_ROWS", rows)
    hidden, weight, targets = _inputs()
    pulls = [_random(ROWS, seed=2) * with_logprobs, _random(ROWS, seed=3)]
    leaves = [t.clone().requires_grad_() for t in (hidden, weight)]
    logprobs, entropy, *_ = target_scores(*leaves, targets, TEMPERATURE)
    outputs = [logprobs, entropy] if with_logprobs else [entropy]
    got = torch.autograd.grad(outputs, leaves, pulls[-len(outputs) :], retain_graph=True)
    wide = [t.double().requires_grad_() for t in (hidden, weight)]
    matrix = torch.log_softmax(wide[0] @ wide[1].t() / TEMPERATURE, -1)
    chosen = matrix.gather(-1, targets[:, None])[:, 0]
    expected = torch.autograd.grad([chosen, _entropy(matrix)], wide, [p.double() for p in pulls])
    for g, e in zip(got, expected, strict=True):
        torch.testing.assert_close(g.double(), e, rtol=1e-5, atol=1e-5)
    without = torch.autograd.grad(logprobs, leaves, pulls[0])
    assert (without[0].double() - expected[0]).abs().max() > 0.1  # the control


class _Entropy(torch.autograd.Function):
    """The entropy of float64 logits, with the gradient of the kernels."""

    @staticmethod
    def forward(ctx, logits):
        stats = torch.stack((logits.amax(-1) / TEMPERATURE, (logits / TEMPERATURE).logsumexp(-1)), -1)
        stats[:, 1] -= stats[:, 0]
        entropy = _entropy(torch.log_softmax(logits / TEMPERATURE, -1))
        ctx.save_for_backward(logits, stats, entropy)
        return entropy

    @staticmethod
    def backward(ctx, grad):
        logits, stats, entropy = ctx.saved_tensors
        nothing, targets = torch.zeros_like(grad), torch.zeros(len(grad), dtype=torch.int64)
        kernels = ops.backend(logits)
        return kernels.logit_grads(logits, TEMPERATURE, targets, stats, nothing, torch.float64, entropy, grad)


def test_the_gradient_of_entropy_is_that_of_the_numbers():
    assert torch.autograd.gradcheck(_Entropy.apply, (3 * _random(4, 9, dtype=torch.float64)).requires_grad_())


def test_an_entropy_that_nobody_differentiates_costs_nothing(monkeypatch):
    given = []
    kernels = ops.backend(torch.empty(0))
    original = kernels.logit_grads

    def spy(*args):
        given.append(args[6:])
        return original(*args)

    monkeypatch.setattr(kernels, "logit_grads", spy)
    hidden, weight, targets = _inputs()
    logprobs, entropy, *_ = target_scores(hidden.requires_grad_(), weight, targets, TEMPERATURE)
    logprobs.sum().backward(retain_graph=True)
    assert given == [(None, None)]
    (logprobs.sum() + entropy.sum()).backward()
    assert given[1] != (None, None)  # the control


def test_an_infinite_logit_spoils_nothing_and_a_nan_stays_visible():
    logits, targets = _random(3, 8), torch.zeros(3, dtype=torch.int64)
    logits[1, 5], logits[2, 5] = -torch.inf, torch.nan
    kernels = ops.backend(logits)
    logprobs, entropy, stats, *_ = kernels.row_scores(logits, TEMPERATURE, targets, None, None)
    rest = logits[1, logits[1].isfinite()].double() / TEMPERATURE
    torch.testing.assert_close(entropy[1].double(), torch.distributions.Categorical(logits=rest).entropy())
    assert [t.isnan().tolist() for t in (logprobs, entropy)] == [[False, False, True]] * 2
    for extra in ((), (entropy, torch.full((3,), 1e6))):
        grads = kernels.logit_grads(logits, TEMPERATURE, targets, stats, torch.ones(3), torch.float32, *extra)
        assert grads[1, 5] == 0
        assert grads[:2].isfinite().all()
        assert grads[2].isnan().any()


def test_a_draw_needs_seed_and_position():
    with pytest.raises(ValueError, match="both"):
        target_scores(*_inputs(), TEMPERATURE, seeds=torch.arange(ROWS))
