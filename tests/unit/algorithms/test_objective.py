"""The whole objective: aggregation, its terms, and that packing changes nothing."""

from dataclasses import replace

import pytest
import torch

from rlsync.algorithms.aggregation import denominator, token_weights
from rlsync.algorithms.objective import objective
from rlsync.algorithms.segment_reduce import sequence_means, sequence_sums
from rlsync.config.algorithm import Aggregation, AlgorithmConfig, KlKind, LossKind
from rlsync.pack import MinibatchSize, PolicyOutput
from rlsync.trainer.packing import minibatch_size

MAX_TOKENS = 10


def _output(logprobs, entropy=None):
    return PolicyOutput(logprobs=logprobs, entropy=torch.zeros_like(logprobs) if entropy is None else entropy)


def test_sequence_sums_and_means(make_pack):
    pack = make_pack([(1, 2), (2, 3)])
    values = torch.arange(5.0, dtype=torch.float64)
    assert sequence_sums(values, pack).tolist() == [1.0, 9.0]
    assert sequence_means(values, pack).tolist() == [0.5, 3.0]
    half = replace(pack, trained=torch.tensor([True, True, False, True, True]))
    assert sequence_means(values * half.trained, half).tolist() == [0.5, 3.5]
    nothing = replace(pack, trained=torch.zeros_like(pack.mask))
    assert sequence_means(values * nothing.trained, nothing).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("aggregation", "weights", "whole"),
    [
        (Aggregation.token_mean, [1, 1, 1, 1], 4),
        (Aggregation.sequence_mean, [1 / 3, 1 / 3, 1 / 3, 1], 2),
        (Aggregation.fixed_length, [1, 1, 1, 1], 2 * MAX_TOKENS),
    ],
)
def test_weights_and_denominators_by_hand(aggregation, weights, whole, make_pack):
    pack = make_pack([(1, 3), (2, 1)])
    got = token_weights(pack, aggregation, torch.float64)
    assert got.tolist() == pytest.approx(weights)
    first = replace(pack, trained=torch.tensor([True, False, False, False]))
    assert token_weights(first, aggregation, torch.float64).tolist() == [1, 0, 0, 0]
    assert denominator(minibatch_size([[pack]]), aggregation, MAX_TOKENS) == whole


def test_filler_is_no_sequence(make_pack):
    pack = make_pack([(1, 3), (2, 1)])
    filler = replace(pack, sequence_ids=torch.tensor([-1, -1]), trained=torch.zeros_like(pack.mask))
    assert minibatch_size([[pack], [filler]]) == MinibatchSize(tokens=4, sequences=2)


def _naive_mean(values, pack, aggregation):
    owners = pack.sequences.tolist()
    rows = [[v for v, owner in zip(values, owners, strict=True) if owner == s] for s in range(len(pack.lengths))]
    match aggregation:
        case Aggregation.token_mean:
            return sum(sum(r) for r in rows) / sum(len(r) for r in rows)
        case Aggregation.sequence_mean:
            return sum(sum(r) / len(r) for r in rows) / len(rows)
        case Aggregation.fixed_length:
            return sum(sum(r) for r in rows) / (len(rows) * MAX_TOKENS)


@pytest.mark.parametrize("aggregation", Aggregation)
def test_the_terms_add_up(aggregation, make_pack, make_logprobs):
    """Loss + 0.3 KL - 0.2 entropy, with the on-policy loss -A, compared with plain Python."""
    pack = make_pack([(1, 3), (2, 6), (1, 1)])
    g = torch.Generator().manual_seed(3)
    reference, entropy = (torch.rand(len(pack.mask), generator=g, dtype=torch.float64) for _ in range(2))
    config = AlgorithmConfig(aggregation=aggregation, kl_coef=0.3, entropy_coef=0.2)
    terms = objective(_output(pack.rollout_logprobs, entropy), pack, config, reference=reference - 2)
    d = reference - 2 - pack.rollout_logprobs
    values = (-pack.advantages + 0.3 * (d.exp() - d - 1) - 0.2 * entropy).tolist()
    got = float(terms.total) / denominator(minibatch_size([[pack]]), aggregation, MAX_TOKENS)
    assert got == pytest.approx(_naive_mean(values, pack, aggregation), rel=1e-12)
    assert terms.kl_sum == pytest.approx(float((d.exp() - d - 1)[pack.mask].sum()))


def test_gspo_over_sequences_is_the_papers_objective(make_pack, make_logprobs):
    pack = make_pack([(1, 3), (2, 6), (1, 1)])
    logprobs = make_logprobs(pack)
    config = AlgorithmConfig(loss=LossKind.gspo, aggregation=Aggregation.sequence_mean, clip_low=0.02, clip_high=0.03)
    got = float(objective(_output(logprobs), pack, config).total) / 3
    ratios = sequence_means(logprobs - pack.rollout_logprobs, pack).exp()
    advantages = pack.advantages[[0, 3, 9]]
    want = -torch.minimum(ratios * advantages, ratios.clamp(0.98, 1.03) * advantages).mean()
    assert got == pytest.approx(float(want), rel=1e-12)


@pytest.mark.parametrize("aggregation", Aggregation)
@pytest.mark.parametrize("kind", LossKind)
def test_the_gradient_of_the_whole(kind, aggregation, make_pack, make_logprobs):
    pack = make_pack()
    config = AlgorithmConfig(loss=kind, aggregation=aggregation, kl_coef=0.1, kl=KlKind.k2, entropy_coef=0.1)
    reference = pack.rollout_logprobs - 0.1

    def total(logprobs, entropy):
        return objective(_output(logprobs, entropy), pack, config, reference=reference).total

    entropy = torch.rand(len(pack.mask), dtype=torch.float64).requires_grad_()
    spread = 20.0 if kind is LossKind.cispo else 0.3  # see test_losses.py
    assert torch.autograd.gradcheck(total, (make_logprobs(pack, spread), entropy))


def test_truncated_importance_sampling_by_hand(make_pack):
    """The trainer's probabilities are 2 and 0.5 times the rollout's; the cap lowers the first factor to 1.5."""
    pack = make_pack([(1, 2)])
    old = pack.rollout_logprobs + torch.tensor([2.0, 0.5], dtype=torch.float64).log()
    pack = replace(pack, old_logprobs=old, advantages=torch.ones(2, dtype=torch.float64))
    logprobs = old.clone().requires_grad_()
    terms = objective(_output(logprobs), pack, AlgorithmConfig(tis_cap=1.5))
    terms.total.backward()
    assert logprobs.grad.tolist() == pytest.approx([-1.5, -0.5])
    assert (terms.truncated, terms.policy.ratio_min, terms.policy.ratio_max) == (1, 1.0, 1.0)
    plain = objective(_output(logprobs), replace(pack, old_logprobs=None), AlgorithmConfig())
    assert plain.policy.ratio_max == pytest.approx(2.0)  # the control: the rollout's log-probs are the old ones
