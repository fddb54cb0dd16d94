"""Put rlsync's ops into a Hugging Face model, instance by instance; nothing process-global changes.

Hooks: the attention and mask interfaces of transformers, and a change of class of single modules, which
leaves parameters, names and FSDP alone.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig, PreTrainedModel
from transformers.models.llama import modeling_llama
from transformers.models.mistral import modeling_mistral
from transformers.models.qwen2 import modeling_qwen2
from transformers.models.qwen3 import modeling_qwen3

from rlsync.errors import ConfigError
from rlsync.kernels import ops
from rlsync.kernels.attention_spec import AttentionSpec
from rlsync.kernels.key_paths import KeyPaths
from rlsync.kernels.order import check_leaves_divide
from rlsync.kernels.rope import rope_table, spec_from_config

ATTENTION = "rlsync"
_FAMILIES = ("Llama", "Mistral", "Qwen2", "Qwen3")
SUPPORTED = tuple(f"{family}ForCausalLM" for family in _FAMILIES)
SUPPORTED_CRITICS = (*SUPPORTED, *(f"{family}ForSequenceClassification" for family in _FAMILIES))
"""What a critic may be made from."""

_NORMS = (
    modeling_llama.LlamaRMSNorm,
    modeling_mistral.MistralRMSNorm,
    modeling_qwen2.Qwen2RMSNorm,
    modeling_qwen3.Qwen3RMSNorm,
)
_MLPS = (
    modeling_llama.LlamaMLP,
    modeling_mistral.MistralMLP,
    modeling_qwen2.Qwen2MLP,
    modeling_qwen3.Qwen3MLP,
)
_ROTARIES = (
    modeling_llama.LlamaRotaryEmbedding,
    modeling_mistral.MistralRotaryEmbedding,
    modeling_qwen2.Qwen2RotaryEmbedding,
    modeling_qwen3.Qwen3RotaryEmbedding,
)


class InvariantLinear(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return ops.linear(x, self.weight, self.bias)


class InvariantRowParallelLinear(nn.Linear):
    """A linear that tensor parallelism splits along K; follows the tree of `leaves` leaves."""

    leaves: int

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return ops.row_parallel_linear(x, self.weight, self.bias, leaves=self.leaves)


class InvariantRMSNorm(nn.Module):
    weight: nn.Parameter
    variance_epsilon: float

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return ops.rms_norm(x, self.weight, self.variance_epsilon)


class InvariantMLP(nn.Module):
    gate_proj: nn.Linear
    up_proj: nn.Linear
    down_proj: nn.Linear

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(ops.silu_and_mul(self.gate_proj(x), self.up_proj(x)))


class InvariantEmbedding(nn.Embedding):
    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return ops.embedding(ids, self.weight)


class InvariantRotary(nn.Module):
    """cos and sin [1, T, D] from the shared table (a non-persistent buffer, in the compute dtype)."""

    table: torch.Tensor

    def __init__(self, config: PreTrainedConfig, dtype: torch.dtype) -> None:
        super().__init__()
        spec = spec_from_config(config.rope_parameters, head_dim(config), config.max_position_embeddings)
        self.register_buffer("table", rope_table(spec, dtype), persistent=False)

    def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        cos, sin = self.table[position_ids].chunk(2, dim=-1)
        return torch.cat((cos, cos), dim=-1), torch.cat((sin, sin), dim=-1)


def packed_attention_forward(
    module: nn.Module,
    query: torch.Tensor,  # [1, Hq, T, D]
    key: torch.Tensor,  # [1, Hkv, T, D]
    value: torch.Tensor,
    attention_mask: None,
    scaling: float,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    *,
    starts: torch.Tensor,
    longest: int | None = None,
    paths: KeyPaths | None = None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface over a pack, whose `starts`, `longest` and `paths` arrive as keywords of the
    model's forward; a tree needs all three."""
    if dropout:
        raise ConfigError(f"attention_dropout={dropout}: dropout in training cannot match the rollout; set it to 0")
    q, k, v = (t[0].transpose(0, 1) for t in (query, key, value))
    spec = AttentionSpec(starts=starts, scale=scaling, window=sliding_window or 0, paths=paths, longest=longest)
    return ops.attention(q, k, v, spec)[None], None


def check_supported(config: PreTrainedConfig, supported: tuple[str, ...] = SUPPORTED) -> None:
    """Raises ConfigError for a model whose forward pass rlsync cannot make exact, and says why."""
    architectures = config.architectures or []
    if not any(name in supported for name in architectures):
        raise ConfigError(
            f"model architecture {', '.join(architectures) or 'unknown'} is not supported by kernels=invariant. "
            f"Supported: {', '.join(supported)}. kernels=native trains any causal model, without the guarantee."
        )
    if config.hidden_act != "silu":
        raise ConfigError(f"hidden_act={config.hidden_act} is not supported: the gated activation is SiLU")
    if config.attention_dropout:
        raise ConfigError(
            f"attention_dropout={config.attention_dropout}: dropout cannot match the rollout; set it to 0"
        )
    if "quantization_config" in config.to_dict():
        raise ConfigError("the model's weights are quantised, and exact kernels need them in bfloat16 or float32")


def install(model: PreTrainedModel, *, leaves: int, dtype: torch.dtype) -> None:
    """Make every floating-point op of `model`'s backbone one of rlsync's.

    Args:
        model: a causal LM, a sequence classifier or a backbone, before `fully_shard`.
        leaves: of the tree; 1 for the gather form.
        dtype: compute dtype.
    Raises:
        ConfigError: an unsupported model, or a K that the leaves do not divide.
    """
    check_supported(model.config, SUPPORTED_CRITICS)
    AttentionInterface.register(ATTENTION, packed_attention_forward)
    AttentionMaskInterface.register(ATTENTION, lambda *args, **kwargs: None)
    model.set_attn_implementation(ATTENTION)
    rows = row_parallel_names(model)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear):
            if name in rows:
                check_leaves_divide(name, module.in_features, leaves)
                module.__class__ = InvariantRowParallelLinear
                module.leaves = leaves  # type: ignore[assignment]
            else:
                module.__class__ = InvariantLinear
        elif isinstance(module, _NORMS):
            module.__class__ = InvariantRMSNorm  # type: ignore[assignment]
        elif isinstance(module, _MLPS):
            module.__class__ = InvariantMLP  # type: ignore[assignment]
        elif isinstance(module, nn.Embedding):
            module.__class__ = InvariantEmbedding
        elif isinstance(module, _ROTARIES):
            parent, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent), attribute, InvariantRotary(model.config, dtype))


def head_dim(config: PreTrainedConfig) -> int:
    """Channels of an attention head; some families (Qwen2) have no field for it, and others leave it empty."""
    return config.to_dict().get("head_dim") or config.hidden_size // config.num_attention_heads


def row_parallel_names(model: PreTrainedModel) -> set[str]:
    """Modules that the model's own tensor-parallel plan splits along K."""
    plan: dict[str, str] = {}
    for module in (model, model.base_model):
        prefix = "" if module is model.base_model else f"{model.base_model_prefix}."
        plan.update({prefix + key: value for key, value in (model.base_model.config.base_model_tp_plan or {}).items()})  # type: ignore[operator, union-attr]
    patterns = {key for key, value in plan.items() if value.startswith("rowwise")}
    return {
        name
        for name, _ in model.named_modules()
        if ".".join("*" if part.isdigit() else part for part in name.split(".")) in patterns
    }
