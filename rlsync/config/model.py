"""Configuration of the policy's model and its compute dtype."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from rlsync.config.lora import LoraConfig
from rlsync.config.numbers import check_counts, check_seed
from rlsync.errors import ConfigError

MAIN = "main"
"""The hub's default revision."""


class ModelSource(StrEnum):
    """Where the model comes from."""

    tiny = "tiny"
    """Built and warm-started by rlsync itself, then cached; needs no download."""
    huggingface = "huggingface"
    """A local folder or a hub id, in Hugging Face format."""


class ComputeDtype(StrEnum):
    """Dtype of the forward pass."""

    bfloat16 = "bfloat16"
    """Half the memory and traffic of float32; what GPUs have tensor cores for."""
    float32 = "float32"
    """Needs twice the memory and is slower."""


@dataclass(kw_only=True, slots=True)
class TinyConfig:
    """The tiny model: a small Qwen3 that rlsync builds and warm-starts itself (model.source=tiny)."""

    hidden_size: int = 128
    """Width of the residual stream."""
    layers: int = 4
    """Number of decoder layers."""
    heads: int = 4
    """Number of attention heads; a multiple of kv_heads."""
    kv_heads: int = 2
    """Number of key-value heads."""
    head_dim: int = 32
    """Number of channels of an attention head; even."""
    intermediate_size: int = 576
    """Width of the MLP."""
    warm_start_steps: int = 700
    """Number of supervised updates of the warm start."""
    warm_start_batch: int = 128
    """Number of problems in a warm-start batch."""
    warm_start_lr: float = 3e-3
    """Learning rate of the warm start."""
    warm_start_problems: int = 2000
    """Number of distinct problems that the warm start sees."""
    warm_start_style_share: float = 0.7
    """Share of plain answers in the demonstrations of problems whose first digit is 1, 4 or 7; in those of all other
    problems the share is one minus this. A demonstration writes an answer plainly (21) or with a tilde (~21). The
    reward accepts only plain answers, so RL brings out the rewarded style, while the arithmetic is learnt in the warm
    start. With environment=calculator the two styles are a call of the calculator and an answer without one."""
    seed: int = 0
    """Seed of the initial weights and of the warm start; the run's own seed does not affect them."""

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
                f"model.tiny.head_dim={self.head_dim}: must be even and at least 2, because rotary embeddings rotate "
                "pairs of values"
            )
        if self.warm_start_lr < 0 or not 0 <= self.warm_start_style_share <= 1:
            raise ConfigError(
                f"model.tiny.warm_start_lr={self.warm_start_lr}, "
                f"model.tiny.warm_start_style_share={self.warm_start_style_share}: the learning rate must not be "
                "negative, and the share must be at least 0 and at most 1"
            )
        check_seed("model.tiny.seed", self.seed)


@dataclass(kw_only=True, slots=True)
class ModelConfig:
    """Configuration of the policy's model."""

    source: ModelSource = ModelSource.tiny
    path: str = ""
    """Folder or hub id (model.source=huggingface)."""
    revision: str = MAIN
    """Branch, tag or commit of the hub id in `path`. Other models of the run use the hub's default revision."""
    dtype: ComputeDtype = ComputeDtype.bfloat16
    """Dtype of the forward pass on both sides; master weights are always float32."""
    cache_dir: str = "~/.cache/rlsync"
    """Folder in which tiny models are cached."""
    tiny: TinyConfig = field(default_factory=TinyConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)

    def __post_init__(self) -> None:
        if self.source is ModelSource.huggingface and not self.path:
            raise ConfigError(
                "model.path is empty, and model.source=huggingface needs it. Give a folder or a hub id, "
                "for example model.path=Qwen/Qwen3-0.6B"
            )

    def revision_of(self, path: str) -> str:
        """Return the revision to load of the model at `path`, which may be a critic or a reference with another path.

        `revision` applies only to the model that the field `path` names.
        """
        return self.revision if path == self.path else MAIN
