"""Which model, and in which dtype it computes."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from rlsync.config.lora import LoraConfig
from rlsync.config.numbers import check_counts, check_seed
from rlsync.errors import ConfigError

MAIN = "main"
"""The hub's own default revision."""


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
    intermediate_size: int = 576
    warm_start_steps: int = 700
    warm_start_batch: int = 128
    """Problems in a warm-start batch."""
    warm_start_lr: float = 3e-3
    warm_start_problems: int = 2000
    """Distinct problems that the warm start sees."""
    warm_start_style_share: float = 0.7
    """Demonstrations write an answer plainly (21) or with a tilde (~21). Problems whose first digit is 1, 4 or 7 have
    this share of plain ones, the others one minus this. The reward accepts plain answers alone, so what reinforcement
    learning brings out is the rewarded style; the arithmetic is learnt before. With environment=calculator the two
    styles are a call of it and an answer from the head."""
    seed: int = 0
    """Of the initial weights and the warm start; the run's seed does not enter."""

    def __post_init__(self) -> None:
        counts = {
            "hidden_size": self.hidden_size,
            "layers": self.layers,
            "heads": self.heads,
            "kv_heads": self.kv_heads,
            "intermediate_size": self.intermediate_size,
            "warm_start_steps": self.warm_start_steps,
            "warm_start_batch": self.warm_start_batch,
            "warm_start_problems": self.warm_start_problems,
        }
        check_counts("model.tiny", counts)
        if self.heads % self.kv_heads:
            raise ConfigError(
                f"model.tiny.heads={self.heads}, model.tiny.kv_heads={self.kv_heads}: the former must be a multiple of "
                "the latter"
            )
        if self.head_dim < 2 or self.head_dim % 2:
            raise ConfigError(
                f"model.tiny.head_dim={self.head_dim}: must be even and at least 2; rotary positions turn pairs"
            )
        if self.warm_start_lr < 0 or not 0 <= self.warm_start_style_share <= 1:
            raise ConfigError(
                f"model.tiny.warm_start_lr={self.warm_start_lr}, "
                f"model.tiny.warm_start_style_share={self.warm_start_style_share}: want no negative rate, and a share "
                "of at least 0 and at most 1"
            )
        check_seed("model.tiny.seed", self.seed)


@dataclass(kw_only=True, slots=True)
class ModelConfig:
    source: ModelSource = ModelSource.tiny
    path: str = ""
    """Folder or hub id (model.source=huggingface)."""
    revision: str = MAIN
    """Branch, tag or commit of a hub id in `path`; other models of the run are the hub's newest."""
    dtype: ComputeDtype = ComputeDtype.bfloat16
    """dtype of the forward pass on both sides; master weights are always float32."""
    cache_dir: str = "~/.cache/rlsync"
    """Where a model that rlsync builds is kept."""
    tiny: TinyConfig = field(default_factory=TinyConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)

    def __post_init__(self) -> None:
        if self.source is ModelSource.huggingface and not self.path:
            raise ConfigError(
                "model.path is empty, and model.source=huggingface needs it: give a folder or a hub id, "
                "for example model.path=Qwen/Qwen3-0.6B"
            )

    def revision_of(self, path: str) -> str:
        """The revision of a model that some process loads: a critic or a reference may be another one than `path`."""
        return self.revision if path == self.path else MAIN
