"""Configuration of the training objective: advantage, loss, KL and reward shaping."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from rlsync.config.numbers import check_counts
from rlsync.errors import ConfigError


class AdvantageKind(StrEnum):
    """How rewards become advantages."""

    grpo = "grpo"
    """Reward minus the group's mean, divided by the group's standard deviation (DeepSeekMath, arXiv 2402.03300)."""
    rloo = "rloo"
    """Reward minus the mean reward of the group's other responses (arXiv 2402.14740)."""
    reinforce_pp = "reinforce_pp"
    """Reward minus the mean of the step's whole batch, divided by its standard deviation (REINFORCE++, arXiv
    2501.03262)."""
    reinforce_pp_baseline = "reinforce_pp_baseline"
    """Reward minus the group's mean, divided by the standard deviation in the whole batch (same paper)."""
    gae = "gae"
    """Generalised advantage estimation (arXiv 1506.02438): one advantage for each token, from a critic's values."""


class LossKind(StrEnum):
    """Policy loss."""

    ppo_clip = "ppo_clip"
    """Clipped surrogate of each token's ratio (PPO, arXiv 1707.06347)."""
    gspo = "gspo"
    """Clipped surrogate of each sequence's ratio, a geometric mean over its tokens (GSPO, arXiv 2507.18071)."""
    cispo = "cispo"
    """Log-prob weighted by the clipped ratio, which carries no gradient (CISPO, arXiv 2506.13585)."""


class Aggregation(StrEnum):
    """How the losses of tokens become one number."""

    token_mean = "token_mean"
    """Mean over all tokens of a minibatch (DAPO, arXiv 2503.14476)."""
    sequence_mean = "sequence_mean"
    """Mean over tokens within each sequence, then mean over sequences (GRPO, arXiv 2402.03300)."""
    fixed_length = "fixed_length"
    """Sum over tokens / (sequences * rollout.max_tokens): no length is favoured (Dr. GRPO, arXiv 2503.20783)."""


class KlKind(StrEnum):
    """Schulman's estimators of KL(policy || reference) from one token; d = reference - policy log-prob."""

    k1 = "k1"
    """-d; unbiased, may be negative."""
    k2 = "k2"
    """d^2 / 2; in the loss its gradient is that of the KL."""
    k3 = "k3"
    """e^d - d - 1; unbiased, never negative."""


class KlPlace(StrEnum):
    """Where the KL to the reference enters."""

    loss = "loss"
    """Each token's estimate is added to its loss (GRPO)."""
    reward = "reward"
    """Each token's estimate is subtracted from its reward (PPO); with advantages other than `gae`, their sum over the
    response is subtracted from the response's reward (RLOO)."""


@dataclass(kw_only=True, slots=True)
class AlgorithmConfig:
    """Configuration of the objective."""

    name: str = "grpo"
    """Name of the chosen option, with which wandb tags the run. Nothing depends on it."""
    advantage: AdvantageKind = AdvantageKind.grpo
    group_size: int = 8
    """Number of responses to each prompt."""
    prompts_per_step: int = 16
    """Number of prompts in a step; a step has prompts_per_step * group_size samples."""
    normalize_std: bool = True
    """With advantage=grpo: divide by the group's standard deviation. Dr. GRPO (arXiv 2503.20783) does not."""
    gamma: float = 1.0
    """With advantage=gae: discount factor per token."""
    gae_lambda: float = 1.0
    """With advantage=gae: the lambda that trades bias for variance. With 1 the critic is only a baseline, so an
    untrained critic adds no bias. Smaller values rely on the critic's values of later tokens, which lowers the
    variance."""
    whiten: bool = True
    """With advantage=gae: subtract the mean of the advantages of all tokens sampled in the step, and divide by their
    standard deviation."""
    loss: LossKind = LossKind.ppo_clip
    aggregation: Aggregation = Aggregation.token_mean
    clip_low: float = 0.2
    """The ratio is clipped to [1 - clip_low, 1 + clip_high]; 1 = no lower bound."""
    clip_high: float = 0.28
    """The ratio is clipped to [1 - clip_low, 1 + clip_high]. A larger upper bound is DAPO's clip-higher (arXiv
    2503.14476)."""
    dual_clip: float = 0.0
    """With loss=ppo_clip: upper bound of the ratio where the advantage is negative; 3 in arXiv 1912.09729; 0 = off."""
    tis_cap: float = 0.0
    """Truncated importance sampling (Yao et al. 2025, openreview.net/forum?id=xsonlP8DRV): a token's policy loss is
    weighted by min(trainer's / rollout's probability, tis_cap), both at the weights that sampled it; 0 = off. For
    native kernels only: with exact kernels there is nothing to correct."""
    kl_coef: float = 0.0
    """Weight of the KL to the reference; 0 = no reference model is loaded."""
    kl_model: str = ""
    """The reference: folder or hub id of a causal LM with the policy's tokenizer. Empty = the policy's initial
    model."""
    kl: KlKind = KlKind.k3
    kl_in: KlPlace = KlPlace.loss
    entropy_coef: float = 0.0
    """Weight of the entropy bonus (A3C, arXiv 1602.01783); 0 = off."""
    overlong_buffer: int = 0
    """Soft overlong punishment (DAPO, arXiv 2503.14476, eq. 13): number of tokens before rollout.max_tokens over which
    the penalty grows linearly from 0 to overlong_penalty; 0 = off."""
    overlong_penalty: float = 1.0
    """With overlong_buffer: what is subtracted from the reward of a response of rollout.max_tokens tokens."""
    dynamic_sampling: bool = False
    """Draw prompts until prompts_per_step groups have rewards that differ (DAPO, arXiv 2503.14476, section 3.2)."""
    max_resamples: int = 4
    """Most rounds of further prompts that dynamic sampling may draw after the first."""

    @property
    def has_critic(self) -> bool:
        """Whether a critic is trained."""
        return self.advantage is AdvantageKind.gae

    def __post_init__(self) -> None:
        self._check_groups()
        self._check_gae()
        self._check_clips()
        self._check_kl()
        if self.entropy_coef < 0:
            raise ConfigError(
                f"algorithm.entropy_coef={self.entropy_coef}: must not be negative; 0 turns the bonus off"
            )
        if self.overlong_buffer < 0 or self.overlong_penalty <= 0:
            raise ConfigError(
                f"algorithm.overlong_buffer={self.overlong_buffer}, "
                f"algorithm.overlong_penalty={self.overlong_penalty}: "
                "the buffer must not be negative (0 turns it off), and the penalty must be positive: it is subtracted"
            )

    def _check_groups(self) -> None:
        alone = self.advantage in (AdvantageKind.reinforce_pp, AdvantageKind.gae)
        if self.group_size < (1 if alone else 2):
            raise ConfigError(
                f"algorithm.group_size={self.group_size}: a group-relative advantage needs at least 2 responses to a "
                "prompt (a group of one always has advantage 0). Use 8 or 16; only advantage=reinforce_pp and "
                "advantage=gae take 1."
            )
        check_counts("algorithm", {"prompts_per_step": self.prompts_per_step})
        if self.prompts_per_step * self.group_size < 2:
            raise ConfigError(
                f"algorithm.prompts_per_step={self.prompts_per_step}, algorithm.group_size={self.group_size}: "
                f"advantage={self.advantage} needs at least 2 samples a step to compare. Raise either."
            )
        if self.dynamic_sampling and alone:
            raise ConfigError(
                f"algorithm.dynamic_sampling=true: with advantage={self.advantage} a group of equal rewards trains "
                "like any other, and dropping it would bias the batch. Use advantage=reinforce_pp_baseline, or turn "
                "dynamic_sampling off."
            )
        if self.max_resamples < (1 if self.dynamic_sampling else 0):
            raise ConfigError(
                f"algorithm.max_resamples={self.max_resamples}: must not be negative, and must be at least 1 with "
                "dynamic_sampling"
            )

    def _check_gae(self) -> None:
        if not 0 < self.gamma <= 1 or not 0 <= self.gae_lambda <= 1:
            raise ConfigError(
                f"algorithm.gamma={self.gamma}, algorithm.gae_lambda={self.gae_lambda}: must satisfy 0 < gamma <= 1 "
                "and 0 <= gae_lambda <= 1"
            )
        if self.has_critic and self.loss is LossKind.gspo:
            raise ConfigError(
                "algorithm.loss=gspo has one ratio for a whole response, but advantage=gae has one advantage for each "
                "token. Use loss=ppo_clip or loss=cispo."
            )

    def _check_clips(self) -> None:
        if not 0 < self.clip_low <= 1 or self.clip_high <= 0:
            raise ConfigError(
                f"algorithm.clip_low={self.clip_low}, algorithm.clip_high={self.clip_high}: must satisfy "
                "0 < clip_low <= 1 (1 = no lower bound) and clip_high > 0"
            )
        if self.dual_clip and self.dual_clip <= 1:
            raise ConfigError(
                f"algorithm.dual_clip={self.dual_clip}: must be above 1, or it would cut off on-policy tokens. Use 3, "
                "or 0 to turn it off."
            )
        if self.tis_cap and self.tis_cap < 1:
            raise ConfigError(
                f"algorithm.tis_cap={self.tis_cap}: a cap below 1 would shrink tokens without any mismatch. Use 2, or "
                "0 to turn it off."
            )

    def _check_kl(self) -> None:
        if self.kl_coef < 0:
            raise ConfigError(f"algorithm.kl_coef={self.kl_coef}: must not be negative")
        if self.kl_coef and self.kl is KlKind.k1 and self.kl_in is KlPlace.loss:
            raise ConfigError(
                "algorithm.kl=k1 with algorithm.kl_in=loss: the gradient of k1 is 0 on average, so it would not keep "
                "the policy near the reference. Use kl=k2 or kl=k3 in the loss, or kl_in=reward."
            )
