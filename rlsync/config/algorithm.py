"""The objective."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from rlsync.errors import ConfigError


class AdvantageKind(StrEnum):
    grpo = "grpo"
    """(reward - group mean) / (group std + eps) (DeepSeekMath, arXiv 2402.03300)."""


@dataclass(kw_only=True, slots=True)
class AlgorithmConfig:
    advantage: AdvantageKind = AdvantageKind.grpo
    group_size: int = 8
    """Responses to one prompt."""
    prompts_per_step: int = 16
    normalize_std: bool = True
    """Divide by the group's standard deviation (off: Dr. GRPO, arXiv 2503.20783)."""
    clip_low: float = 0.2
    clip_high: float = 0.28
    """Clip-higher (DAPO, arXiv 2503.14476): the ratio stays in [1 - clip_low, 1 + clip_high]."""
    kl_coef: float = 0.0
    """Weight of the k3 KL to the initial policy, in the loss; 0 = no reference model is held."""

    def __post_init__(self) -> None:
        if self.group_size < 2:
            raise ConfigError(
                f"algorithm.group_size={self.group_size}: a group-relative advantage needs at least 2 responses to a "
                "prompt (a group of one always has advantage 0). Use 8 or 16."
            )
        if self.prompts_per_step < 1:
            raise ConfigError(f"algorithm.prompts_per_step={self.prompts_per_step}: must be at least 1")
        if not 0 < self.clip_low < 1 or self.clip_high <= 0:
            raise ConfigError(
                f"algorithm.clip_low={self.clip_low}, algorithm.clip_high={self.clip_high}: want 0 < clip_low < 1 "
                "and clip_high > 0"
            )
        if self.kl_coef < 0:
            raise ConfigError(f"algorithm.kl_coef={self.kl_coef}: must not be negative")
