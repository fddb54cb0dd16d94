"""Which model, and in which dtype it computes."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from rlsync.errors import ConfigError


class ModelSource(StrEnum):
    tiny = "tiny"
    """Built and warm-started by rlsync itself, then cached; needs no download."""
    huggingface = "huggingface"
    """A local folder or a hub id, in Hugging Face format."""


class ComputeDtype(StrEnum):
    bfloat16 = "bfloat16"
    float32 = "float32"


@dataclass(kw_only=True, slots=True)
class TinyConfig:
    """The small Qwen3 that the product trains itself (model.source=tiny)."""

    hidden_size: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 32
    intermediate_size: int = 512
    warm_start_steps: int = 600
    warm_start_batch: int = 192
    """Problems in a warm-start batch."""
    warm_start_lr: float = 2e-3
    warm_start_problems: int = 4000
    """Distinct problems that the warm start sees."""
    warm_start_copies: int = 8
    """Demonstrations of each problem."""
    warm_start_refusal: float = 0.8
    """Share of demonstrations that answer `?`, not the number, for problems whose first digit is 5 or more; for the
    others it is one minus this. So the model can do more than it shows, and reinforcement learning brings that out."""
    seed: int = 0
    """Of the initial weights and the warm start; the run's seed does not enter."""


@dataclass(kw_only=True, slots=True)
class ModelConfig:
    source: ModelSource = ModelSource.tiny
    path: str = ""
    """Folder or hub id (model.source=huggingface)."""
    revision: str = "main"
    dtype: ComputeDtype = ComputeDtype.bfloat16
    """dtype of the forward pass on both sides; master weights are always float32."""
    cache_dir: str = "~/.cache/rlsync"
    """Where a model that rlsync builds is kept."""
    tiny: TinyConfig = field(default_factory=TinyConfig)

    def __post_init__(self) -> None:
        if self.source is ModelSource.huggingface and not self.path:
            raise ConfigError(
                "model.path is empty, and model.source=huggingface needs it: give a folder or a hub id, "
                "for example model.path=Qwen/Qwen3-0.6B"
            )
