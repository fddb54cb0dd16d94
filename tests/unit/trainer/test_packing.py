"""Packs: nothing lost, nothing padded, the same number on every rank."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlsync.config.trainer import Schedule, TrainerConfig
from rlsync.samples import FinishReason, Rollout, TrainSample, ValueTarget
from rlsync.trainer.packing import pack_samples, plan_packs, unpack_items
from rlsync.trainer.schedule import learning_rate


def _sample(length: int, prompt: int = 1, advantage: float = 1.0) -> TrainSample:
    sampled = torch.arange(length) >= prompt
    return TrainSample(
        advantage=torch.full((length,), advantage),
        rollout=Rollout(
            tokens=torch.arange(length) + 10,
            sampled=sampled,
            logprobs=torch.where(sampled, -1.0 * torch.arange(length), 0.0),
            weight_version=torch.where(sampled, 0, -1).to(torch.int32),
            seed=length,
            finish_reason=FinishReason.stop,
        ),
    )


def test_rows_predict_the_next_token():
    pack = pack_samples([_sample(4, prompt=2, advantage=0.5), _sample(3)], [7, 8])
    assert pack.tokens.tolist() == [10, 11, 12, 13, 10, 11, 12]
    assert pack.positions.tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert pack.starts.tolist() == [0, 4, 7]
    assert (pack.longest, pack.paths, pack.rows_saved) == (4, None, 0)
    assert pack.lengths.tolist() == [4, 3]
    assert pack.rows.tolist() == [1, 2, 4, 5]
    assert pack.item_positions.tolist() == [1, 2, 0, 1]
    assert pack.sequences.tolist() == [0, 0, 1, 1]
    assert pack.targets.tolist() == [12, 13, 11, 12]
    assert pack.mask.tolist() == [True] * 4
    assert pack.rollout_logprobs.tolist() == [-2, -3, -1, -2]
    assert pack.versions.tolist() == [0] * 4
    assert pack.advantages.tolist() == [0.5] * 2 + [1.0] * 2
    assert pack.seeds.tolist() == [4] * 2 + [3] * 2


def test_numbers_of_tokens_go_to_the_items():
    sample, other = _sample(4, prompt=2), _sample(3)
    at = [torch.arange(s.rollout.tokens.numel()).float() * s.rollout.sampled for s in (sample, other)]
    values = [ValueTarget(old=10 * t, returns=100 * t) for t in at]
    samples = [
        replace(s, advantage=torch.arange(s.rollout.tokens.numel()).float(), value=v)
        for s, v in zip((sample, other), values, strict=True)
    ]  # fmt: skip
    pack = pack_samples(samples, [7, 8])
    assert pack.advantages.tolist() == [2, 3, 1, 2]
    assert pack.old_values.tolist() == [20, 30, 10, 20]
    assert pack.returns.tolist() == [200, 300, 100, 200]
    back = unpack_items(pack, pack.returns)
    assert torch.equal(back[7], values[0].returns)
    assert torch.equal(back[8], values[1].returns)
    assert unpack_items(replace(pack, sequence_ids=torch.tensor([-1, 8])), pack.returns).keys() == {8}
    plain = pack_samples([sample], [7])
    assert plain.old_values is None
    assert plain.returns is None


@pytest.mark.parametrize(("prompt", "name"), [(1, -1), (5, 3)])
def test_a_pack_without_a_token_to_train_still_scores_one(prompt, name):
    """Filler, and a sample without sampled tokens."""
    pack = pack_samples([_sample(5, prompt)], [name])
    assert pack.mask.tolist() == [False]
    assert (pack.rollout_logprobs.tolist(), pack.versions.tolist()) == ([0.0], [-1])
    found = unpack_items(pack, torch.ones(1))
    assert {i: v.tolist() for i, v in found.items()} == ({} if name < 0 else {3: [0.0] * 5})


@settings(deadline=None, max_examples=50)
@given(
    lengths=st.lists(st.integers(2, 40), min_size=4, max_size=30),
    ranks=st.integers(1, 3),
    minibatches=st.integers(1, 2),
    budget=st.integers(8, 100),
)
def test_plans_lose_nothing_and_agree_across_ranks(lengths, ranks, minibatches, budget):
    samples = [_sample(n) for n in lengths]
    plan = plan_packs(samples, ranks=ranks, minibatches=minibatches, micro_batch_tokens=budget)
    assert len(plan) == minibatches
    ids = []
    for minibatch in plan:
        assert len({len(packs) for packs in minibatch}) == 1
        for packs in minibatch:
            for pack in packs:
                ids += [i for i in pack.sequence_ids.tolist() if i >= 0]
                assert pack.tokens.numel() <= budget or len(pack.sequence_ids) == 1
    assert sorted(ids) == list(range(len(lengths)))


def test_schedules():
    linear = TrainerConfig(lr=1.0, warmup_steps=2, schedule=Schedule.linear, min_lr_ratio=0.5)
    assert [learning_rate(u, 6, linear) for u in range(6)] == [0.5, 1.0, 1.0, 0.875, 0.75, 0.625]
    cosine = TrainerConfig(lr=1.0, schedule=Schedule.cosine)
    assert learning_rate(0, 4, cosine) == 1.0
    assert abs(learning_rate(2, 4, cosine) - 0.5) < 1e-12
    assert learning_rate(3, 4, TrainerConfig(lr=2.0)) == 2.0
