"""rlsync's formulas on the same inputs as verl's published ones; skipped where verl is not installed.

    pip install --target PEERS --no-deps verl tensordict pyvers orjson cloudpickle importlib_metadata codetiming \\
        pylatexenc dill accelerate
    PYTHONPATH=PEERS pytest tests/peers
"""

import math
from dataclasses import replace

import pytest
import torch

from rlsync.algorithms.advantages import compute_advantages
from rlsync.algorithms.aggregation import denominator
from rlsync.algorithms.gae import gae, whiten
from rlsync.algorithms.kl import token_kl
from rlsync.algorithms.objective import objective
from rlsync.algorithms.value_loss import value_loss
from rlsync.config.algorithm import AdvantageKind, Aggregation, AlgorithmConfig, KlKind, LossKind
from rlsync.pack import MinibatchSize, PolicyOutput
from rlsync.samples import FinishReason, Rollout, TrainSample, ValueTarget
from rlsync.trainer.packing import pack_samples

core = pytest.importorskip("verl.trainer.ppo.core_algos")
from verl.workers.config import ActorConfig  # noqa: E402  (only where verl is)

LENGTHS = (3, 1, 6, 4, 6, 2)
LONGEST = max(LENGTHS)
MASK = torch.arange(LONGEST) < torch.tensor(LENGTHS)[:, None]
AGGREGATIONS = {
    Aggregation.token_mean: "token-mean",
    Aggregation.sequence_mean: "seq-mean-token-mean",
    Aggregation.fixed_length: "seq-mean-token-sum-norm",
}
LOSSES = {LossKind.ppo_clip: "vanilla", LossKind.gspo: "gspo", LossKind.cispo: "cispo"}


def _padded(seed: int) -> torch.Tensor:
    """[B, LONGEST] float64, 0 beyond a response's end."""
    noise = torch.randn(len(LENGTHS), LONGEST, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return noise * MASK


def _pack(**rows: torch.Tensor):
    """The responses after a prompt of one token, with these padded [B, LONGEST] columns in place of the pack's own."""
    samples = []
    for length in LENGTHS:
        sampled = torch.arange(1 + length) > 0
        rollout = Rollout(
            tokens=torch.zeros(1 + length, dtype=torch.int64), sampled=sampled, logprobs=torch.zeros(1 + length),
            weight_version=torch.zeros(1 + length, dtype=torch.int32), seed=0, finish_reason=FinishReason.stop,
        )  # fmt: skip
        value = ValueTarget(old=torch.zeros(1 + length), returns=torch.zeros(1 + length))
        samples.append(TrainSample(rollout=rollout, value=value))
    pack = pack_samples(samples, list(range(len(samples))))
    return replace(pack, **{name: _rows(pack, column) for name, column in rows.items()})


def _rows(pack, column: torch.Tensor) -> torch.Tensor:
    """[B, LONGEST] -> the pack's rows in the mask, 0 elsewhere."""
    return torch.zeros(pack.mask.numel(), dtype=column.dtype).masked_scatter(pack.mask, column[MASK])


@pytest.mark.parametrize("kind", LossKind)
@pytest.mark.parametrize("aggregation", Aggregation)
def test_losses_and_their_gradients(kind, aggregation):
    old, advantages = -_padded(0).abs(), _padded(2)
    if kind is LossKind.gspo:  # a sequence has one advantage
        advantages = advantages[:, :1] * MASK
    new = (old + 0.4 * _padded(1)).detach()
    settings = {"clip_ratio": 0.2, "clip_ratio_low": 0.2, "clip_ratio_high": 0.28, "clip_ratio_c": 1.3}
    config = ActorConfig(strategy="fsdp", rollout_n=1, ppo_micro_batch_size_per_gpu=1, use_dynamic_bsz=True, **settings)
    theirs = new.clone().requires_grad_()
    want, _ = core.get_policy_loss_fn(LOSSES[kind])(
        old_log_prob=old, log_prob=theirs, advantages=advantages, response_mask=MASK.double(),
        loss_agg_mode=AGGREGATIONS[aggregation], config=config,
    )  # fmt: skip
    want.backward()

    dual = 1.3 if kind is LossKind.ppo_clip else 0.0
    algorithm = AlgorithmConfig(loss=kind, aggregation=aggregation, clip_low=0.2, clip_high=0.28, dual_clip=dual)
    pack = _pack(rollout_logprobs=old, advantages=advantages)
    mine = _rows(pack, new).requires_grad_()
    output = PolicyOutput(logprobs=mine, entropy=torch.zeros_like(mine))
    size = MinibatchSize(tokens=sum(LENGTHS), sequences=len(LENGTHS))
    loss = objective(output, pack, algorithm).total / denominator(size, aggregation, LONGEST)
    loss.backward()
    torch.testing.assert_close(loss, want, rtol=1e-7, atol=1e-12)
    torch.testing.assert_close(mine.grad, _rows(pack, theirs.grad), rtol=1e-6, atol=1e-9)
    if kind is LossKind.ppo_clip:  # the control
        other = objective(output, pack, replace(algorithm, clip_high=0.1)).total / denominator(
            size, aggregation, LONGEST
        )
        assert not math.isclose(float(other), float(want), rel_tol=1e-6)


REWARDS = torch.randn(4, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
INDEX = [i for i in range(4) for _ in range(5)]


def _theirs(name: str, length: int = 1, **settings) -> torch.Tensor:
    """verl's advantages [4, 5] of responses of `length` tokens, from the rewards at the last one."""
    rewards = torch.zeros(20, length, dtype=torch.float64)
    rewards[:, -1] = REWARDS.flatten()
    mask = torch.ones_like(rewards)
    return core.get_adv_estimator_fn(name)(token_level_rewards=rewards, response_mask=mask, **settings)[0][:, 0].view(
        4, 5
    )


@pytest.mark.parametrize("normalize", [True, False])
def test_grpo_and_dr_grpo(normalize):
    want = _theirs("grpo", index=INDEX, norm_adv_by_std_in_grpo=normalize)
    mine = compute_advantages(REWARDS, AlgorithmConfig(group_size=5, normalize_std=normalize))
    torch.testing.assert_close(mine, want, rtol=1e-12, atol=1e-12)


def test_rloo():
    mine = compute_advantages(REWARDS, AlgorithmConfig(advantage=AdvantageKind.rloo, group_size=5))
    torch.testing.assert_close(mine, _theirs("rloo", index=INDEX), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", [AdvantageKind.reinforce_pp, AdvantageKind.reinforce_pp_baseline])
def test_reinforce_pp(kind):
    """Responses of one token: verl's deviation is over tokens, rlsync's over samples."""
    from verl.trainer.config import AlgoConfig

    name = {AdvantageKind.reinforce_pp: "reinforce_plus_plus"}.get(kind, "reinforce_plus_plus_baseline")
    mine = compute_advantages(REWARDS, AlgorithmConfig(advantage=kind, group_size=5))
    want = _theirs(name, index=INDEX, config=AlgoConfig(gamma=1.0))
    torch.testing.assert_close(
        mine, want, rtol=1e-5, atol=1e-6
    )  # verl adds 1e-8 to the variance, rlsync 1e-6 to its root


def test_gae():
    rewards, values = _padded(4), _padded(5)
    want, returns = core.compute_gae_advantage_return(rewards, values, MASK.double(), 0.97, 0.9)
    mine = gae(rewards, values, gamma=0.97, gae_lambda=0.9)
    torch.testing.assert_close((mine + values)[MASK], returns[MASK], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(whiten(mine[MASK]), want[MASK], rtol=1e-5, atol=1e-6)


def test_value_loss():
    values, old, returns = _padded(6), _padded(7), _padded(8)
    want, share = core.compute_value_loss(values, returns, old, MASK.double(), 0.2)
    pack = _pack(old_values=old, returns=returns)
    mine = value_loss(_rows(pack, values), pack, 0.2)
    torch.testing.assert_close(mine.total / sum(LENGTHS), want, rtol=1e-12, atol=1e-12)
    assert mine.clipped / sum(LENGTHS) == pytest.approx(float(share))


@pytest.mark.parametrize("kind", KlKind)
def test_kl(kind):
    new, reference = _padded(9) / 2, _padded(10) / 2  # verl bounds an estimate of k3 by 10
    want = core.kl_penalty_forward(new, reference, kind.value)
    torch.testing.assert_close(token_kl(new, reference, MASK, kind), want * MASK, rtol=1e-12, atol=1e-12)
