"""The step of a rank with a policy that is a table of logits: epochs, comparisons, and what packing changes."""

import functools
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from rlsync.cluster.run_plan import plan_run
from rlsync.config.algorithm import Aggregation, KlKind, LossKind
from rlsync.config.compose import compose_train
from rlsync.models.paths import ModelPaths
from rlsync.pack import PolicyOutput
from rlsync.parity.monitor import judge_ratio
from rlsync.samples import FinishReason, Rollout, TrainSample
from rlsync.trainer.packing import minibatch_size, plan_packs
from rlsync.trainer.step import StepRunner

VOCABULARY = 7


class Table(torch.nn.Module):
    """A table of the next token's logits by the last token."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.weight = torch.nn.Parameter(torch.randn(VOCABULARY, VOCABULARY, generator=g))

    def forward(self, pack, *, redraw=False, entropy_grad=False):
        rows = torch.log_softmax(self.weight[pack.tokens[pack.rows]], -1)
        entropy = -(rows.exp() * rows).sum(-1)
        chosen = rows.gather(-1, pack.targets[:, None])[:, 0]
        return PolicyOutput(logprobs=chosen, entropy=entropy if entropy_grad else entropy.detach())


class FakeSharded:
    """One of `ranks` equal copies of a policy."""

    def __init__(self, ranks: int = 1, seed: int = 0) -> None:
        self.policy, self.device = Table(seed), torch.device("cpu")
        self.mesh = SimpleNamespace(size=lambda: ranks)
        self.optimizer = torch.optim.SGD(self.policy.parameters(), lr=1.0)

    def merge_adapters(self) -> None:
        pass


def _samples(count: int = 9, shift: float = 0.0) -> list[TrainSample]:
    """Responses with the log-probs of the table, except that every third has `shift` added."""
    g = torch.Generator().manual_seed(5)
    rows = torch.log_softmax(Table().weight.detach(), -1)
    samples = []
    for index in range(count):
        length = 3 + index
        tokens = torch.randint(VOCABULARY, (length,), generator=g)
        sampled = torch.arange(length) >= 2
        logprobs = torch.zeros(length)
        logprobs[1:] = rows[tokens[:-1], tokens[1:]]
        rollout = Rollout(
            tokens=tokens, sampled=sampled, seed=index, finish_reason=FinishReason.stop,
            logprobs=torch.where(sampled, logprobs + (shift if index % 3 == 0 else 0.0), 0.0),
            weight_version=torch.where(sampled, 4, -1).to(torch.int32),
        )  # fmt: skip
        samples.append(TrainSample(rollout=rollout, advantage=torch.randn((), generator=g).expand(length)))
    return samples


def _settings(config):
    return plan_run(config, ModelPaths(policy="policy"), trains=True).trainer


@functools.cache
def _config(*overrides):
    fixed = [
        "trainer.lr=0.5",
        "trainer.max_grad_norm=1e9",
        "parity.redraw=false",
        "rollout.max_tokens=12",
        "parity=warn",
    ]
    return compose_train([*fixed, *overrides])


def _run(config, samples, *, ranks=1, reference=None):
    """The table after a step, as the mean over ranks, and the statistics of each rank."""
    settings = config.trainer
    packs = plan_packs(
        samples, ranks=ranks, minibatches=settings.minibatches, micro_batch_tokens=settings.micro_batch_tokens,
        share_prefixes=config.share_prefixes,
    )  # fmt: skip
    sizes = [minibatch_size(minibatch) for minibatch in packs]
    weights, stats = [], []
    for rank in range(ranks):
        sharded = FakeSharded(ranks)
        runner = StepRunner(_settings(config), sharded, reference)
        stats.append(runner.run([minibatch[rank] for minibatch in packs], sizes, version=4))
        weights.append(sharded.policy.weight.detach())
    return torch.stack(weights).mean(0), stats


@pytest.mark.parametrize("aggregation", Aggregation)
@pytest.mark.parametrize("loss", LossKind)
@pytest.mark.parametrize(("budget", "ranks"), [(8, 1), (15, 2)])
def test_neither_micro_batches_nor_ranks_change_the_update(aggregation, loss, budget, ranks):
    settings = [f"algorithm.aggregation={aggregation}", f"algorithm.loss={loss}", "algorithm.kl_coef=0.1",
                "algorithm.entropy_coef=0.1"]  # fmt: skip
    samples = _samples(shift=0.3)
    whole, _ = _run(_config(*settings), samples, reference=FakeSharded(seed=1))
    config = _config(*settings, f"trainer.micro_batch_tokens={budget}")
    split, stats = _run(config, samples, ranks=ranks, reference=FakeSharded(seed=1))
    assert sum(s.micro_batches for s in stats) > 1
    torch.testing.assert_close(split, whole, rtol=1e-5, atol=1e-6)
    assert (whole - Table().weight).abs().max() > 1e-2  # it moved at all
    wrong, _ = _run(config, [replace(s, advantage=s.advantage * (i != 4)) for i, s in enumerate(samples)], ranks=ranks)
    assert not torch.allclose(wrong, whole, rtol=1e-5, atol=1e-6)  # the control: one sample's part


@pytest.mark.parametrize("aggregation", Aggregation)
@pytest.mark.parametrize("loss", LossKind)
def test_a_sample_that_is_not_trained_is_compared_and_changes_nothing(aggregation, loss):
    settings = [f"algorithm.aggregation={aggregation}", f"algorithm.loss={loss}", "algorithm.kl_coef=0.1",
                "algorithm.entropy_coef=0.1", "kernels=native", "algorithm.tis_cap=2"]  # fmt: skip
    samples = _samples(shift=0.3)
    failed = [replace(s, trained=i != 4) for i, s in enumerate(samples)]
    masked, (stats,) = _run(_config(*settings), failed, reference=FakeSharded(seed=1))
    without, (fewer,) = _run(_config(*settings), samples[:4] + samples[5:], reference=FakeSharded(seed=1))
    torch.testing.assert_close(masked, without, rtol=1e-5, atol=1e-6)
    assert stats.parity.tokens_compared == fewer.parity.tokens_compared + samples[4].rollout.num_sampled
    for name in ("loss_tokens", "clipped", "truncated"):
        assert getattr(stats, name) == getattr(fewer, name)
    for name in ("loss", "entropy_sum", "kl_sum", "ratio_min", "ratio_max"):
        assert getattr(stats, name) == pytest.approx(getattr(fewer, name), rel=1e-5)
    zero = [replace(s, advantage=s.advantage * (i != 4)) for i, s in enumerate(samples)]
    trained, _ = _run(_config(*settings), zero, reference=FakeSharded(seed=1))
    assert not torch.allclose(trained, without, rtol=1e-5, atol=1e-6)  # the control: an advantage of 0 is not enough


@pytest.mark.parametrize("aggregation", Aggregation)
@pytest.mark.parametrize("loss", LossKind)
@pytest.mark.parametrize(("budget", "ranks"), [(400, 1), (18, 2)])
def test_a_tree_gives_the_update_of_samples_apart(aggregation, loss, budget, ranks):
    """Samples that share parts of their responses, and two equal samples."""
    settings = [f"algorithm.aggregation={aggregation}", f"algorithm.loss={loss}", "algorithm.kl_coef=0.1",
                "algorithm.entropy_coef=0.1", f"trainer.micro_batch_tokens={budget}"]  # fmt: skip
    samples = _samples(shift=0.3)
    for index in (2, 3, 6):
        tokens, other = samples[index].rollout.tokens, samples[index - 1].rollout.tokens
        tokens[: other.numel()] = other
    samples.append(replace(samples[8], advantage=torch.full((samples[8].rollout.tokens.numel(),), -0.7)))
    apart, (first, *rest) = _run(
        _config(*settings, "trainer.prefix_tree=false"), samples, ranks=ranks, reference=FakeSharded(seed=1)
    )
    tree, stats = _run(_config(*settings), samples, ranks=ranks, reference=FakeSharded(seed=1))
    assert sum(s.tokens_saved for s in (first, *rest)) == 0
    assert sum(s.tokens_saved for s in stats) > 15
    assert sum(s.loss_tokens for s in stats) == sum(s.rollout.num_sampled for s in samples)
    torch.testing.assert_close(tree, apart, rtol=1e-5, atol=1e-6)
    samples[-1].advantage = -samples[-1].advantage
    wrong, _ = _run(_config(*settings), samples, ranks=ranks, reference=FakeSharded(seed=1))
    assert not torch.allclose(wrong, tree, rtol=1e-5, atol=1e-6)  # the control: one sample of two on the same rows


@pytest.mark.parametrize("loss", LossKind)
def test_only_the_first_minibatch_of_the_first_epoch_is_on_policy_and_compared(loss):
    config = _config("trainer.minibatches=3", "trainer.epochs=2", "parity.coverage=first", f"algorithm.loss={loss}")
    samples = _samples()
    _, (stats,) = _run(config, samples)
    sampled = [s.rollout.num_sampled for s in samples]
    assert stats.updates == stats.micro_batches == 6
    assert (stats.parity.tokens_compared, stats.parity.tokens_sampled) == (sum(sampled[:3]), sum(sampled))
    assert (stats.parity.tokens_left_out_updated, stats.parity.tokens_left_out_stale) == (sum(sampled[3:]), 0)
    assert stats.parity.tokens_different == 0
    assert stats.loss_tokens == 2 * sum(sampled)
    assert (stats.first_ratio_min, stats.first_ratio_max) == (1.0, 1.0)
    assert stats.ratio_min < 1 < stats.ratio_max  # the control: later ratios are not 1
    assert judge_ratio(stats.first_ratio_min, stats.first_ratio_max, 1) is None
    _, (off,) = _run(config, _samples(shift=1e-3))
    assert off.parity.tokens_different > 0
    assert "must be exactly 1" in judge_ratio(off.first_ratio_min, off.first_ratio_max, 7)


@pytest.mark.parametrize(
    "overrides", [(), ("trainer.minibatches=3",), ("trainer.minibatches=3", "parity.coverage=first")]
)
@pytest.mark.parametrize("action", ["fail", "trace"])
def test_a_divergence_that_ends_the_run_leaves_the_weights_as_they_sampled(overrides, action):
    config = _config(*overrides, f"parity.on_divergence={action}")
    weights, (stats,) = _run(config, _samples(shift=1e-3))
    assert stats.parity.tokens_different > 0
    assert stats.updates == 0
    assert torch.equal(weights, Table().weight)
    trained, (stats,) = _run(config, _samples())  # the control
    assert stats.updates > 0
    assert not torch.equal(trained, weights)


def test_one_minibatch_compares_everything_once():
    samples = _samples()
    _, (stats,) = _run(_config("trainer.epochs=3"), samples)
    assert stats.updates == 3
    assert stats.parity.tokens_compared == stats.parity.tokens_sampled == sum(s.rollout.num_sampled for s in samples)


def test_full_coverage_looks_before_the_first_update():
    _, (stats,) = _run(_config("trainer.minibatches=3", "trainer.epochs=2", "parity.coverage=all"), _samples())
    assert stats.parity.tokens_compared == stats.parity.tokens_sampled > 0
    assert stats.parity.tokens_different == 0


def test_a_second_epoch_goes_on_from_the_first():
    once, twice = (_run(_config(f"trainer.epochs={n}"), _samples())[0] for n in (1, 2))
    assert not torch.equal(once, twice)


@pytest.mark.parametrize("minibatches", [1, 3])
def test_truncated_importance_sampling_is_on_policy_in_the_trainers_own_log_probs(minibatches):
    """The rollout probability of every third response is too low by a factor e, so its weight is e, or the cap."""
    settings = ["kernels=native", f"trainer.minibatches={minibatches}"]
    samples = _samples(shift=-1.0)
    shifted = sum(s.rollout.num_sampled for s in samples[::3])
    _, (capped,) = _run(_config(*settings, "algorithm.tis_cap=1.5"), samples)
    assert (capped.truncated, capped.first_ratio_min, capped.first_ratio_max) == (shifted, 1.0, 1.0)
    assert capped.parity.tokens_compared == capped.parity.tokens_sampled
    assert capped.parity.tokens_different == shifted
    _, (free,) = _run(_config(*settings, "algorithm.tis_cap=3"), samples)
    assert free.truncated == 0
    _, (without,) = _run(_config(*settings), samples)
    assert without.first_ratio_max > 2.7  # the control


def test_the_capped_weight_scales_the_gradient():
    (sample,) = _samples(1, shift=-1.0)
    start = Table().weight.detach()
    moved = {}
    for cap in (1.25, 2.5):
        after, _ = _run(_config("kernels=native", f"algorithm.tis_cap={cap}"), [sample])
        moved[cap] = after - start
    torch.testing.assert_close(moved[2.5], 2 * moved[1.25], rtol=1e-4, atol=1e-6)


def test_the_policy_waits_for_the_critic():
    """Weights of version 4 sample the rollouts of the fifth step."""
    samples, settings = _samples(), ("algorithm=ppo", "trainer.minibatches=3", "trainer.epochs=2")
    still, (stats,) = _run(_config(*settings, "critic.warmup_steps=5"), samples)
    assert torch.equal(still, Table().weight)
    assert (stats.updates, stats.updates_skipped, stats.grad_norm, stats.minibatches) == (0, 0, 0.0, 3)
    assert (stats.ratio_min, stats.ratio_max, stats.parity.tokens_different) == (1.0, 1.0, 0)
    assert stats.parity.tokens_compared == sum(s.rollout.num_sampled for s in samples)
    moved, (stats,) = _run(_config(*settings, "critic.warmup_steps=4"), samples)
    assert not torch.equal(moved, Table().weight)  # the control
    assert (stats.updates, stats.minibatches) == (6, 6)
    assert stats.learning_rate == 0.5


def test_each_token_has_its_own_advantage():
    samples = _samples()
    # Group-relative advantages are float64.
    wide = [replace(s, advantage=s.advantage.double().clone()) for s in samples]
    assert torch.equal(_run(_config(), wide)[0], _run(_config(), samples)[0])
    wide[4].advantage[-1] += 1.0
    assert not torch.equal(_run(_config(), wide)[0], _run(_config(), samples)[0])  # the control: one token's


def test_the_entropy_bonus_raises_entropy():
    samples = [replace(s, advantage=None) for s in _samples()]
    entropies = [_run(_config("trainer.epochs=5", f"algorithm.entropy_coef={c}"), samples)[1][0].entropy_sum for c in
                 (0, 0.5)]  # fmt: skip
    assert entropies[1] > entropies[0]
    _, (stats,) = _run(_config("algorithm.entropy_coef=0.5"), samples)
    assert stats.loss == pytest.approx(-0.5 * stats.entropy_sum / stats.loss_tokens, rel=1e-5)


@pytest.mark.parametrize("kind", KlKind)
def test_kl_to_the_reference_by_token(kind):
    config = _config(f"algorithm.kl={kind}", "algorithm.kl_coef=0.1", "algorithm.kl_in=reward")
    samples, reference = _samples(), FakeSharded(seed=1)
    rows = torch.log_softmax(reference.policy.weight.detach(), -1).double()
    runner = StepRunner(_settings(config), FakeSharded(), reference)
    got: dict[int, torch.Tensor] = {}
    for ranks in plan_packs(samples, ranks=2, minibatches=1, micro_batch_tokens=20)[0]:
        got |= runner.reference_kl(ranks)
    assert sorted(got) == list(range(len(samples)))
    for index, sample in enumerate(samples):
        tokens, want = sample.rollout.tokens, [0.0, 0.0]
        for t in range(2, len(tokens)):
            d = float(rows[tokens[t - 1], tokens[t]]) - float(sample.rollout.logprobs[t])
            want.append({KlKind.k1: -d, KlKind.k2: d * d / 2, KlKind.k3: torch.tensor(d).exp().item() - d - 1}[kind])
        assert got[index].tolist() == pytest.approx(want, rel=1e-4, abs=1e-5)


def test_the_kl_in_the_reward_is_not_in_the_loss():
    samples, reference = _samples(), FakeSharded(seed=1)
    plain, _ = _run(_config(), samples)
    rewarded, (stats,) = _run(_config("algorithm.kl_coef=0.5", "algorithm.kl_in=reward"), samples, reference=reference)
    assert torch.equal(rewarded, plain)
    assert stats.kl_sum == 0
    lossy, (stats,) = _run(_config("algorithm.kl_coef=0.5"), samples, reference=reference)
    assert not torch.equal(lossy, plain)  # the control
    assert stats.kl_sum > 0
