"""Installs rlsync's ops in a single Hugging Face model; other models in the process are not affected.

Attention is replaced through the attention and mask interfaces of transformers. Other modules get another class, so
that their parameters and names, and thus FSDP and checkpoints, stay as they are.
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
"""Name of the attention implementation in transformers."""
_FAMILIES = ("Llama", "Mistral", "Qwen2", "Qwen3")
SUPPORTED = tuple(f"{family}ForCausalLM" for family in _FAMILIES)
"""Architectures that a policy or a reference may have."""
SUPPORTED_CRITICS = (*SUPPORTED, *(f"{family}ForSequenceClassification" for family in _FAMILIES))
"""Architectures that a critic may start from."""

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
    """A linear layer that computes with `ops.linear`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., K] -> [..., N]."""
        return ops.linear(x, self.weight, self.bias)


class InvariantRowParallelLinear(nn.Linear):
    """A linear layer that tensor parallelism splits along K; it follows the reduction tree."""

    leaves: int
    """Number of leaves of the reduction tree."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., K] -> [..., N]."""
        return ops.row_parallel_linear(x, self.weight, self.bias, leaves=self.leaves)


class InvariantRMSNorm(nn.Module):
    """An RMSNorm layer that computes with `ops.rms_norm`."""

    weight: nn.Parameter
    variance_epsilon: float

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., K] -> [..., K]."""
        return ops.rms_norm(x, self.weight, self.variance_epsilon)


class InvariantMLP(nn.Module):
    """A gated MLP with `ops.silu_and_mul` between its linear layers."""

    gate_proj: nn.Linear
    up_proj: nn.Linear
    down_proj: nn.Linear

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., hidden] -> [..., hidden]."""
        return self.down_proj(ops.silu_and_mul(self.gate_proj(x), self.up_proj(x)))


class InvariantEmbedding(nn.Embedding):
    """A token embedding that computes with `ops.embedding`."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """[...] token ids -> [..., hidden]."""
        return ops.embedding(ids, self.weight)


class InvariantRotary(nn.Module):
    """Rotary positions from the table that trainer and rollout share.

    Args:
        config: config of the model.
        dtype: compute dtype, which the table has.
    """

    table: torch.Tensor
    """[positions, D]: the cosines and then the sines of D / 2 angles; a buffer that checkpoints do not contain."""

    def __init__(self, config: PreTrainedConfig, dtype: torch.dtype) -> None:
        super().__init__()
        spec = spec_from_config(config.rope_parameters, head_dim(config), config.max_position_embeddings)
        self.register_buffer("table", rope_table(spec, dtype), persistent=False)

    def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # noqa: ARG002
        """Cosines and sines [1, T, D] of `position_ids` [1, T]; transformers passes the hidden states `x` too."""
        cos, sin = self.table[position_ids].chunk(2, dim=-1)
        return torch.cat((cos, cos), dim=-1), torch.cat((sin, sin), dim=-1)


def packed_attention_forward(
    module: nn.Module,  # noqa: ARG001 (transformers fixes the arguments)
    query: torch.Tensor,  # [1, Hq, T, D]
    key: torch.Tensor,  # [1, Hkv, T, D]
    value: torch.Tensor,
    attention_mask: None,  # noqa: ARG001
    scaling: float,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    *,
    starts: torch.Tensor,
    longest: int | None = None,
    paths: KeyPaths | None = None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Attention over a pack, as an attention function of transformers.

    The pack's `starts`, `longest` and `paths` are keyword arguments of the model's forward, which transformers passes
    on. A prefix tree needs all three.

    Returns:
        [1, T, Hq, D], and None in place of attention weights.
    """
    if dropout:
        raise ConfigError(
            f"attention_dropout={dropout}: with dropout the trainer cannot match the rollout. Set attention_dropout=0 "
            "in config.json."
        )
    q, k, v = (t[0].transpose(0, 1) for t in (query, key, value))
    spec = AttentionSpec(starts=starts, scale=scaling, window=sliding_window or 0, paths=paths, longest=longest)
    return ops.attention(q, k, v, spec)[None], None


def check_supported(config: PreTrainedConfig, supported: tuple[str, ...] = SUPPORTED) -> None:
    """Check that rlsync can make a model's forward pass exact.

    Args:
        config: config of the model.
        supported: the architectures that the model may have.

    Raises:
        ConfigError: it cannot.
    """
    architectures = config.architectures or []
    if not any(name in supported for name in architectures):
        raise ConfigError(
            f"model architecture {', '.join(architectures) or 'unknown'} is not supported by kernels=invariant. "
            f"Supported: {', '.join(supported)}. kernels=native trains any causal model, without the guarantee."
        )
    if config.hidden_act != "silu":
        raise ConfigError(
            f"hidden_act={config.hidden_act} is not supported by kernels=invariant, which has SiLU only. Use another "
            "model, or kernels=native."
        )
    if config.attention_dropout:
        raise ConfigError(
            f"attention_dropout={config.attention_dropout}: with dropout the trainer cannot match the rollout. Set "
            "attention_dropout=0 in config.json."
        )
    if "quantization_config" in config.to_dict():
        raise ConfigError(
            "quantization_config in config.json: the model's weights are quantised, but exact kernels need them in "
            "bfloat16 or float32. Use the model as it was before quantisation."
        )


def install(model: PreTrainedModel, *, leaves: int, dtype: torch.dtype) -> None:
    """Replace every floating-point op of a model's backbone by one of rlsync's.

    Args:
        model: a causal LM, a sequence classifier or a backbone, before `fully_shard`; it is changed in place.
        leaves: number of leaves of the reduction tree; 1 for the gather form.
        dtype: compute dtype.

    Raises:
        ConfigError: the model is not supported, or the leaves do not divide the input size of a row-parallel layer.
    """
    check_supported(model.config, SUPPORTED_CRITICS)
    AttentionInterface.register(ATTENTION, packed_attention_forward)
    AttentionMaskInterface.register(ATTENTION, lambda *_, **__: None)  # attention needs no mask tensor
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
    """Channels of an attention head, which some families (Qwen2) and some models do not name in their config."""
    return config.to_dict().get("head_dim") or config.hidden_size // config.num_attention_heads


def row_parallel_names(model: PreTrainedModel) -> set[str]:
    """Names of the modules that the model's own tensor-parallel plan splits along K."""
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
