"""The critic's step on one rank, and what packing changes, with a critic that is a table of values."""

import functools
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from rlsync.cluster.run_plan import plan_run
from rlsync.config.compose import compose_train
from rlsync.errors import NonFiniteError
from rlsync.models.paths import ModelPaths
from rlsync.samples import FinishReason, Rollout, TrainSample, ValueTarget
from rlsync.trainer.critic_step import CriticRunner
from rlsync.trainer.packing import minibatch_size, plan_packs

VOCABULARY = 7


class Values(torch.nn.Module):
    """A table of values by the last token."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(0)))

    def forward(self, pack):
        return self.weight[pack.tokens[pack.rows]]


class FakeCritic:
    """One of `ranks` equal copies of a critic."""

    def __init__(self, config, ranks: int = 1) -> None:
        self.critic, self.device, self.settings = Values(), torch.device("cpu"), config.trainer
        self.mesh = SimpleNamespace(size=lambda: ranks)
        self.optimizer = torch.optim.SGD(self.critic.parameters(), lr=1.0)


def _samples(count=9, returns=None) -> list[TrainSample]:
    """Samples with environment tokens among the sampled ones."""
    g = torch.Generator().manual_seed(5)
    weight = Values().weight.detach()
    samples = []
    for index in range(count):
        length = 4 + index
        tokens = torch.randint(VOCABULARY, (length,), generator=g)
        sampled = (torch.arange(length) >= 2) & (torch.arange(length) % 4 != 0)
        old = torch.cat((torch.zeros(1), weight[tokens[:-1]]))
        target = torch.randn(length, generator=g) if returns is None else torch.full((length,), returns)
        rollout = Rollout(
            tokens=tokens, sampled=sampled, seed=index, finish_reason=FinishReason.stop, logprobs=torch.zeros(length),
            weight_version=torch.where(sampled, 4, -1).to(torch.int32),
        )  # fmt: skip
        value = ValueTarget(old=torch.where(sampled, old, 0.0), returns=torch.where(sampled, target, 0.0))
        samples.append(TrainSample(rollout=rollout, value=value))
    return samples


def _settings(config):
    return plan_run(config, ModelPaths(policy="policy"), trains=True).trainer


@functools.cache
def _config(*overrides):
    fixed = ["algorithm=ppo", "trainer.lr=0.5", "trainer.max_grad_norm=1e9", "rollout.max_tokens=12"]
    return compose_train([*fixed, *overrides])


def _packs(config, samples, ranks=1):
    settings = config.trainer
    return plan_packs(
        samples, ranks=ranks, minibatches=settings.minibatches, micro_batch_tokens=settings.micro_batch_tokens
    )


def _run(config, samples, ranks=1):
    """The table after a step, as the mean over ranks, and the statistics of each rank."""
    packs = _packs(config, samples, ranks)
    sizes = [minibatch_size(minibatch) for minibatch in packs]
    weights, stats = [], []
    for rank in range(ranks):
        critic = FakeCritic(config, ranks)
        stats.append(CriticRunner(_settings(config), critic).run([minibatch[rank] for minibatch in packs], sizes))
        weights.append(critic.critic.weight.detach())
    return torch.stack(weights).mean(0), stats


@pytest.mark.parametrize("minibatch", [1, 3])
@pytest.mark.parametrize(("budget", "ranks"), [(8, 1), (15, 2)])
def test_neither_micro_batches_nor_ranks_change_the_update(budget, ranks, minibatch):
    """Ranks that train separately agree only in the first update, so they get one minibatch."""
    settings = () if ranks > 1 else (f"trainer.minibatches={minibatch}",)
    samples = _samples()
    whole, (all_stats,) = _run(_config(*settings), samples)
    config = _config(*settings, f"trainer.micro_batch_tokens={budget}")
    split, stats = _run(config, samples, ranks)
    torch.testing.assert_close(split, whole, rtol=1e-5, atol=1e-6)
    assert (whole - Values().weight).abs().max() > 1e-2  # it moved at all
    assert sum(s.loss for s in stats) == pytest.approx(all_stats.loss, rel=1e-5)
    assert sum(s.tokens for s in stats) == sum(s.rollout.num_sampled for s in samples)
    wrong, _ = _run(config, samples[:-1], ranks)
    assert not torch.allclose(wrong, whole, rtol=1e-5, atol=1e-6)  # the control: one sample's part


def test_the_update_is_that_of_the_formula():
    samples = _samples()
    after, (stats,) = _run(_config("critic.clip=0"), samples)
    weight = Values().weight.detach().double()
    gradient, loss, count = torch.zeros_like(weight), 0.0, 0
    for sample in samples:
        for t in sample.rollout.sampled.nonzero()[:, 0].tolist():
            last = sample.rollout.tokens[t - 1]
            miss = float(weight[last]) - float(sample.value.returns[t])
            gradient[last] += miss
            loss, count = loss + miss**2 / 2, count + 1
    torch.testing.assert_close(after.double(), weight - 0.5 * gradient / count, rtol=1e-5, atol=1e-6)
    assert stats.loss == pytest.approx(loss / count, rel=1e-5)
    assert stats.grad_norm == pytest.approx(float((gradient / count).norm()), rel=1e-5)
    assert (stats.learning_rate, stats.updates, stats.updates_skipped, stats.clipped) == (0.5, 1, 0, 0)


def test_a_sample_that_is_not_trained_is_no_target():
    samples = _samples()
    failed = [replace(s, trained=i != 4) for i, s in enumerate(samples)]
    after, (stats,) = _run(_config(), failed)
    without, (fewer,) = _run(_config(), samples[:4] + samples[5:])
    torch.testing.assert_close(after, without, rtol=1e-5, atol=1e-6)
    assert (stats.tokens, stats.loss) == (fewer.tokens, pytest.approx(fewer.loss, rel=1e-5))
    assert not torch.allclose(_run(_config(), samples)[0], without, rtol=1e-5, atol=1e-6)  # the control


def test_the_clip_counts_from_before_the_step():
    once, (first,) = _run(_config("critic.clip=0.01"), _samples())
    again, (later,) = _run(_config("critic.clip=0.01", "trainer.epochs=3"), _samples())
    assert (first.clipped, first.updates, later.updates) == (0, 1, 3)
    assert later.clipped > 0
    free, _ = _run(_config("critic.clip=0", "trainer.epochs=3"), _samples())
    assert not torch.equal(again, once)
    assert not torch.equal(again, free)  # the control


def test_values_come_back_by_sequence_and_token():
    config, samples = _config("trainer.micro_batch_tokens=20"), _samples()
    runner = CriticRunner(_settings(config), FakeCritic(config))
    found: dict[int, torch.Tensor] = {}
    for ranks in _packs(config, samples, ranks=2)[0]:
        found |= runner.values(ranks)
    assert sorted(found) == list(range(len(samples)))
    assert all(torch.equal(found[i], sample.value.old) for i, sample in enumerate(samples))
    assert not torch.equal(found[3], found[4][:-1])  # the control


def test_a_gradient_that_is_not_finite_is_left_out_and_counted():
    samples = _samples(returns=float("inf"))
    after, (stats,) = _run(_config("critic.clip=0"), samples)
    assert torch.equal(after, Values().weight)
    assert (stats.updates, stats.updates_skipped) == (0, 1)
    assert not torch.equal(_run(_config("critic.clip=0"), _samples())[0], Values().weight)  # the control
    with pytest.raises(NonFiniteError, match=r"trainer\.nonfinite=stop.*Lower critic\.lr"):
        _run(_config("critic.clip=0", "trainer.nonfinite=stop"), samples)
