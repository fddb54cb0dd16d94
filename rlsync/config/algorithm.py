"""The objective."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from rlsync.config.numbers import check_counts
from rlsync.errors import ConfigError


class AdvantageKind(StrEnum):
    grpo = "grpo"
    """Less the group's mean, over the group's standard deviation (DeepSeekMath, arXiv 2402.03300)."""
    rloo = "rloo"
    """Less the mean of the group's other responses (arXiv 2402.14740)."""
    reinforce_pp = "reinforce_pp"
    """Less the mean of the step's whole batch, over its standard deviation (REINFORCE++, arXiv 2501.03262)."""
    reinforce_pp_baseline = "reinforce_pp_baseline"
    """Less the group's mean, over the standard deviation in the whole batch (same paper)."""
    gae = "gae"
    """Of each token, from a critic's values: generalised advantage estimation (arXiv 1506.02438)."""


class LossKind(StrEnum):
    ppo_clip = "ppo_clip"
    """Clipped surrogate of each token's ratio (PPO, arXiv 1707.06347)."""
    gspo = "gspo"
    """Clipped surrogate of each sequence's ratio, a geometric mean over its tokens (GSPO, arXiv 2507.18071)."""
    cispo = "cispo"
    """Log-prob weighted by the clipped ratio, which carries no gradient (CISPO, arXiv 2506.13585)."""


class Aggregation(StrEnum):
    token_mean = "token_mean"
    """Mean over all tokens of a minibatch (DAPO, arXiv 2503.14476)."""
    sequence_mean = "sequence_mean"
    """Mean over sequences of each one's mean over tokens (GRPO, arXiv 2402.03300)."""
    fixed_length = "fixed_length"
    """Sum over tokens / (sequences * rollout.max_tokens): no length is favoured (Dr. GRPO, arXiv 2503.20783)."""


class KlKind(StrEnum):
    """Schulman's estimators of KL(policy || reference) from one token; d = reference - policy log-prob."""

    k1 = "k1"
    """-d; unbiased, either sign."""
    k2 = "k2"
    """d^2 / 2; in the loss its gradient is that of the KL."""
    k3 = "k3"
    """e^d - d - 1; unbiased, never negative."""


class KlPlace(StrEnum):
    loss = "loss"
    """Each token's estimate is added to its loss (GRPO)."""
    reward = "reward"
    """Each token's estimate is subtracted from its reward (PPO); a response's sum for all other advantages (RLOO)."""


@dataclass(kw_only=True, slots=True)
class AlgorithmConfig:
    advantage: AdvantageKind = AdvantageKind.grpo
    group_size: int = 8
    """Responses to one prompt."""
    prompts_per_step: int = 16
    normalize_std: bool = True
    """Of `grpo`: divide by the group's standard deviation (off: Dr. GRPO, arXiv 2503.20783)."""
    gamma: float = 1.0
    """Of `gae`: discount of a reward for each token before it."""
    gae_lambda: float = 1.0
    """Of `gae`: weight of each further token's surprise. 1 uses the critic as a baseline alone, so that an untrained
    one biases nothing; less trusts its later values, for less variance."""
    whiten: bool = True
    """Of `gae`: less the mean, over the standard deviation of the step's sampled tokens."""
    loss: LossKind = LossKind.ppo_clip
    aggregation: Aggregation = Aggregation.token_mean
    clip_low: float = 0.2
    clip_high: float = 0.28
    """Clip-higher (DAPO, arXiv 2503.14476): the ratio counts within [1 - clip_low, 1 + clip_high]."""
    dual_clip: float = 0.0
    """Of `ppo_clip`: bounds the loss of a negative advantage by this ratio, 3 in arXiv 1912.09729; 0 = off."""
    tis_cap: float = 0.0
    """Truncated importance sampling (Yao et al. 2025, openreview.net/forum?id=xsonlP8DRV): a token's policy loss is
    weighted by min(trainer's / rollout's probability, tis_cap), both at the sampler's weights; 0 = off. Native kernels
    only: exact ones have nothing to correct."""
    kl_coef: float = 0.0
    """Weight of the KL to the reference; 0 = no reference model is held."""
    kl_model: str = ""
    """The reference: folder or hub id of a causal LM of the policy's tokenizer. Empty = the policy's initial model."""
    kl: KlKind = KlKind.k3
    kl_in: KlPlace = KlPlace.loss
    entropy_coef: float = 0.0
    """Weight of the entropy bonus (A3C, arXiv 1602.01783); 0 = off."""
    overlong_buffer: int = 0
    """Soft overlong punishment (DAPO, arXiv 2503.14476, eq. 13): the last tokens before rollout.max_tokens, over which
    the punishment grows to its whole; 0 = off."""
    overlong_penalty: float = 1.0
    """Reward that a response of rollout.max_tokens loses, with overlong_buffer."""
    dynamic_sampling: bool = False
    """Draw prompts until prompts_per_step groups have rewards that differ (DAPO, arXiv 2503.14476, section 3.2)."""
    max_resamples: int = 4
    """Rounds of prompts that dynamic sampling may add to the first."""

    @property
    def has_critic(self) -> bool:
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
                "want a buffer of 0 (off) or more tokens, and a positive penalty, which is subtracted"
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
                f"algorithm.dynamic_sampling=true: with advantage={self.advantage} a group of equal rewards teaches as "
                "any other, and dropping it would bias the batch. Use advantage=reinforce_pp_baseline, or turn it off."
            )
        if self.max_resamples < (1 if self.dynamic_sampling else 0):
            raise ConfigError(
                f"algorithm.max_resamples={self.max_resamples}: must not be negative, and be at least 1 with "
                "dynamic_sampling"
            )

    def _check_gae(self) -> None:
        if not 0 < self.gamma <= 1 or not 0 <= self.gae_lambda <= 1:
            raise ConfigError(
                f"algorithm.gamma={self.gamma}, algorithm.gae_lambda={self.gae_lambda}: want 0 < gamma <= 1 and "
                "0 <= gae_lambda <= 1"
            )
        if self.has_critic and self.loss is LossKind.gspo:
            raise ConfigError(
                "algorithm.loss=gspo has one ratio for a whole response, and advantage=gae an advantage for each "
                "token. Use loss=ppo_clip or cispo."
            )

    def _check_clips(self) -> None:
        if not 0 < self.clip_low <= 1 or self.clip_high <= 0:
            raise ConfigError(
                f"algorithm.clip_low={self.clip_low}, algorithm.clip_high={self.clip_high}: want 0 < clip_low <= 1 "
                "(1 = no lower bound) and clip_high > 0"
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
                "algorithm.kl=k1 with algorithm.kl_in=loss: its gradient is 0 on average, so it would hold the policy "
                "nowhere. Use kl=k2 or kl=k3 in the loss, or kl_in=reward."
            )
