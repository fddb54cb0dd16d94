"""Configuration of low-rank adapters (LoRA, arXiv 2106.09685)."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlsync.errors import ConfigError

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(kw_only=True, slots=True)
class LoraConfig:
    """Train B [out, rank] and A [rank, in] of W + (alpha / rank) B A instead of W."""

    rank: int = 0
    """Rank of the adapters; 0 = no adapters, so all weights are trained."""
    alpha: float = 16.0
    """Scale of the adapters: their product is multiplied by alpha / rank."""
    targets: list[str] = field(default_factory=lambda: list(PROJECTIONS))
    """Linear layers that get an adapter, named by the last part of their module names."""

    def __post_init__(self) -> None:
        if self.rank < 0:
            raise ConfigError(f"model.lora.rank={self.rank}: must not be negative (0 trains all weights)")
        if self.alpha <= 0:
            raise ConfigError(f"model.lora.alpha={self.alpha}: must be positive")
        unknown = [name for name in self.targets if name not in PROJECTIONS]
        if unknown or not self.targets:
            raise ConfigError(
                f"model.lora.targets={list(self.targets)}: name at least one layer, and only {', '.join(PROJECTIONS)}"
            )

    @property
    def scale(self) -> float:
        """Factor of the adapter's product: alpha / rank."""
        return self.alpha / self.rank
