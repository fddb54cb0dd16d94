"""PPO with a critic on two FSDP ranks: parity holds, the critic learns, and its checkpoint can be loaded."""

import json

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from rlsync.config.kernels import KernelMode
from rlsync.models.critic import Critic
from rlsync.models.load import load_critic
from rlsync.samples import FinishReason, Rollout, TrainSample
from rlsync.trainer.packing import pack_samples

STEPS, SAMPLES = 3, 64


@pytest.fixture(scope="module")
def ppo(launcher):
    """The first step trains only the critic, and is not saved: the policy's next sync follows on a forward pass."""
    run = launcher.run(
        "algorithm=ppo", f"algorithm.prompts_per_step={SAMPLES}", "algorithm.group_size=1", "algorithm.kl_coef=0.01",
        "algorithm.kl=k1", "algorithm.kl_in=reward", "critic.lr=1e-3", "critic.warmup_steps=1", "critic.clip=0.05",
        "trainer.minibatches=2", "trainer.save_every=2", "parity.coverage=all", "rollout.tp=1", "eval.problems=0",
    )  # fmt: skip
    assert run.code == 0, run.out + run.err
    return run


def test_every_step_is_exact_and_trains_both(ppo):
    assert len(ppo.metrics) == STEPS
    for row in ppo.metrics:
        assert row["parity/tokens_compared"] == row["parity/tokens_sampled"] > 0
        for key in ("tokens_different", "max_ulp", "draws_different", "nonfinite", "tokens_left_out_stale"):
            assert row[f"parity/{key}"] == 0
        assert row["critic/loss"] > 0
        assert row["critic/grad_norm"] > 0
        assert (row["critic/learning_rate"], row["critic/lr"], row["critic/updates_skipped"]) == (1e-3, 1e-3, 0)
        assert 0 <= row["critic/clip_fraction"] < 1
    warm_up, *others = ppo.metrics
    assert (warm_up["train/updates"], warm_up["train/grad_norm"], warm_up["train/kl_reference"]) == (0, 0, 0)
    assert all(row["train/updates"] == 2 and row["train/grad_norm"] > 0 for row in others)
    assert others[-1]["train/kl_reference"] != 0
    assert (warm_up["critic/value_mean"], warm_up["critic/explained_variance"]) == (0, 0)
    assert all(row["critic/value_mean"] != 0 and row["critic/explained_variance"] != 0 for row in others)
    assert sum(row["critic/clip_fraction"] for row in ppo.metrics) > 0


def _value_mean(folder, rows):
    """Mean over the sampled tokens of the rollouts `rows`, by the critic saved in `folder`, one sequence at a time."""
    critic = Critic(
        load_critic(str(folder), KernelMode.invariant), mode=KernelMode.invariant, leaves=8, dtype=torch.bfloat16
    ).to(torch.bfloat16)  # fmt: skip
    values = []
    for row in rows:
        tokens = torch.tensor(row["prompt_tokens"] + row["response_tokens"])
        n = len(tokens)
        rollout = Rollout(
            tokens=tokens, sampled=torch.arange(n) >= len(row["prompt_tokens"]), logprobs=torch.zeros(n),
            weight_version=torch.zeros(n, dtype=torch.int32), seed=0, finish_reason=FinishReason.stop,
        )  # fmt: skip
        pack = pack_samples([TrainSample(rollout=rollout)], [0])
        with torch.no_grad():
            values.append(critic(pack)[pack.mask].double())
    return float(torch.cat(values).mean())


def test_the_saved_critic_has_the_values_of_the_next_step(ppo):
    """The values are bitwise equal, although two ranks sharded the critic and packs had other sequences."""
    rows = [json.loads(line) for line in (ppo.folder / "rollouts.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["step"] == STEPS]
    assert len(rows) == SAMPLES
    assert all(len(row["advantage"]) == len(row["response_tokens"]) for row in rows)
    saved = ppo.folder / "checkpoints"
    value_mean = ppo.metrics[-1]["critic/value_mean"]
    assert _value_mean(saved / "step_2/critic", rows) == value_mean
    assert _value_mean(saved / "step_3/critic", rows) != value_mean  # the control
    stock = AutoModelForSequenceClassification.from_pretrained(saved / "step_3/critic")
    assert stock.score.weight.shape == (1, stock.config.hidden_size)
    assert stock.score.weight.ne(0).any()
