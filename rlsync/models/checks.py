"""Checks of a run's models before any actor starts: shapes, weights and tokens.

vLLM and transformers would refuse most of these models only after the actors have started, and some not at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)

from rlsync.config.cluster import Device
from rlsync.config.kernels import RowParallel
from rlsync.config.reward import RewardConfig, RewardFunctionConfig, RewardKind
from rlsync.config.rollout import RolloutConfig
from rlsync.data.text import load_tokenizer
from rlsync.errors import ConfigError
from rlsync.kernels.order import check_leaves_divide
from rlsync.kernels.rope import spec_from_config
from rlsync.models.install import SUPPORTED, head_dim
from rlsync.models.load import (
    VALUE_HEAD,
    load_classifier_config,
    load_config,
    load_critic_config,
    resolved,
)
from rlsync.models.settings import ModelSettings
from rlsync.models.weights import check_weights

_GPU_HEAD_DIMS = (16, 32, 64, 128, 256)
_LM_HEAD = "lm_head.weight"
_SLIDING = "sliding_attention"
_BYTES = {"bfloat16": 2, "float32": 4}


@dataclass(slots=True, kw_only=True, frozen=True)
class ModelUse(ModelSettings):
    """The settings of a run that decide which models it can use."""

    rollout: RolloutConfig
    local: bool
    """Whether the engines run on this machine."""


def check_model(path: str, use: ModelUse, field: str = "model.path") -> None:
    """Check the policy.

    Args:
        path: resolved folder or hub id of the policy.
        use: how the run uses it.
        field: configuration field of the path, for messages.

    Raises:
        ConfigError: the policy cannot be loaded, served by vLLM, or made exact with the run's tensor-parallel size and
            number of leaves.
    """
    model = load_config(path, use.kernels.mode, use.model.revision, field=field)
    if known := _known(model):
        check_heads(model.num_attention_heads, model.num_key_value_heads, use.rollout.tp)
        _check_windows(field, model)
        _check_divides(field, model.intermediate_size, use.rollout.tp)
        check_cache(model, use)
    if not use.native:
        check_length(model.max_position_embeddings, use.rollout)
        check_shapes(field, model.num_attention_heads, head_dim(model), model.intermediate_size, use)
        spec_from_config(model.rope_parameters, head_dim(model), model.max_position_embeddings)
    check_weights(path, model, AutoModelForCausalLM, field=field, revision=use.model.revision_of(path), served=known)


def check_critic(path: str, policy: str, tokenizer: PreTrainedTokenizerBase, use: ModelUse) -> None:
    """Check a critic that starts from another model than the policy.

    Args:
        path, use: as in `check_model`.
        policy, tokenizer: the policy's resolved path and its tokenizer.

    Raises:
        ConfigError: the model cannot be loaded or made exact, or it does not know the policy's tokens.
    """
    revision = use.model.revision_of(path)
    critic = load_critic_config(path, use.kernels.mode, revision)
    _check_companion("critic.path", path, critic, policy, tokenizer, use)
    classifies = any(name.endswith("ForSequenceClassification") for name in critic.architectures or [])
    check_weights(
        path,
        critic,
        AutoModelForSequenceClassification,
        field="critic.path",
        revision=revision,
        optional=frozenset() if classifies else frozenset({VALUE_HEAD}),
        unread=frozenset() if classifies else frozenset({_LM_HEAD}),
    )


def check_reference(path: str, policy: str, tokenizer: PreTrainedTokenizerBase, use: ModelUse) -> None:
    """Check a reference that is another model than the policy; arguments and errors are as in `check_critic`."""
    field, revision = "algorithm.kl_model", use.model.revision_of(path)
    reference = load_config(path, use.kernels.mode, revision, field=field)
    _check_companion(field, path, reference, policy, tokenizer, use)
    check_weights(path, reference, AutoModelForCausalLM, field=field, revision=revision)


def _check_companion(
    field: str,
    path: str,
    companion: PreTrainedConfig,
    policy: str,
    tokenizer: PreTrainedTokenizerBase,
    use: ModelUse,
) -> None:
    """Check that the companion model at `path` knows the policy's tokens and that its shapes suit exact kernels."""
    tokens = load_config(policy, use.kernels.mode, use.model.revision).vocab_size
    if companion.vocab_size < tokens:  # a larger one is fine: models with one tokenizer may pad their embeddings
        raise ConfigError(
            f"{field}={path}: its vocabulary has {companion.vocab_size} tokens and the policy's has {tokens}, so it "
            "cannot read all of the policy's tokens. Use a model with the same tokenizer."
        )
    bare = Path(path).is_dir() and not Path(path, "tokenizer_config.json").is_file()
    if not bare and load_tokenizer(path, use.model.revision_of(path)).get_vocab() != tokenizer.get_vocab():
        raise ConfigError(
            f"{field}={path}: its tokenizer is not the policy's ({policy}), so it would misread the policy's tokens. "
            "Use a model with the same tokenizer."
        )
    if not use.native:
        check_shapes(field, companion.num_attention_heads, head_dim(companion), companion.intermediate_size, use)


def check_reward_models(reward: RewardConfig) -> None:
    """Check the reward models of a run.

    Raises:
        ConfigError: a checkpoint lacks weights, or its embedding lacks tokens of its tokenizer.
    """
    parts: dict[str, RewardFunctionConfig] = {f"reward.parts.{name}": part for name, part in reward.parts.items()}
    for name, part in (parts or {"reward": reward}).items():
        if part.kind is RewardKind.model:
            field, path = f"{name}.model_path", resolved(part.model_path)
            model = load_classifier_config(path, field)
            check_weights(path, model, AutoModelForSequenceClassification, field=field)
            last, rows = max(load_tokenizer(path).get_vocab().values()), model.get_text_config().vocab_size
            if last >= rows:
                raise ConfigError(
                    f"{field}={path}: the tokenizer has token ids up to {last}, but the embedding ends at {rows - 1}, "
                    "so some texts could not be scored. Use the tokenizer that the model was trained with, or resize "
                    "the embedding."
                )


def vocab_size(path: str, use: ModelUse) -> int:
    """The number of rows of the policy's embedding."""
    return load_config(path, use.kernels.mode, use.model.revision).get_text_config().vocab_size


def check_shapes(field: str, heads: int, dim: int, intermediate_size: int, use: ModelUse) -> None:
    """Check that exact kernels can run the model of the configuration field `field`; `dim` is the channels of a head.

    Raises:
        ConfigError: the GPU kernels do not support the head size, or the leaves do not divide a row-parallel layer.
    """
    check_head_dim(field, dim, use.device)
    if use.kernels.row_parallel is RowParallel.tree:
        check_leaves_divide("o_proj", heads * dim, use.leaves)
        check_leaves_divide("down_proj", intermediate_size, use.leaves)


def check_length(positions: int, rollout: RolloutConfig) -> None:
    """Check that the rotary table of the exact kernels, which ends at `positions`, covers the longest sequence.

    Raises:
        ConfigError: it does not.
    """
    if rollout.max_model_len > positions:
        raise ConfigError(
            f"rollout.max_model_len={rollout.max_model_len}: the model has {positions} positions "
            "(max_position_embeddings). Lower rollout.max_model_len, and with it rollout.max_tokens and "
            "data.max_prompt_tokens."
        )


def check_heads(heads: int, kv_heads: int, tp: int) -> None:
    """Check that vLLM can divide the model's heads by the tensor-parallel size.

    Raises:
        ConfigError: it cannot.
    """
    if heads % tp or (kv_heads % tp and tp % kv_heads):
        raise ConfigError(
            f"rollout.tp={tp} does not suit a model with {heads} attention heads and {kv_heads} key-value heads: it "
            "must divide the number of attention heads, and it must divide the number of key-value heads or be a "
            "multiple of it."
        )


def check_head_dim(field: str, dim: int, device: Device) -> None:
    """Check that the attention kernels of the device support a head of `dim` channels.

    Raises:
        ConfigError: the GPU kernels do not support it.
    """
    if device is Device.cuda and dim not in _GPU_HEAD_DIMS:
        raise ConfigError(
            f"{field}: its attention heads have {dim} channels, but exact kernels on a GPU support only "
            f"{', '.join(map(str, _GPU_HEAD_DIMS))}. Use another model, kernels=native, or cluster=local_cpu."
        )


def check_cache(model: PreTrainedConfig, use: ModelUse) -> None:
    """Check that a worker's KV cache can hold one sequence of the full length, as vLLM requires.

    With a sliding window the cache must hold the part of the sequence that the window keeps.

    Raises:
        ConfigError: the cache is too small for that, or larger than this machine's free memory.
    """
    rollout = use.rollout
    if not rollout.kv_cache_mib:
        return
    heads = max(1, model.num_key_value_heads // rollout.tp)
    block = 2 * rollout.block_size * heads * head_dim(model) * _BYTES[use.model.dtype.value]
    block *= model.num_hidden_layers
    blocks = -(-rollout.max_model_len // rollout.block_size)
    if window := _window(model):
        longest = min(window - 1 + rollout.max_num_batched_tokens, rollout.max_model_len)
        blocks = -(-longest // rollout.block_size) + 1
    blocks += 1  # vLLM reserves one block to which nothing is written
    free = psutil.virtual_memory().available
    if use.device is Device.cpu and use.local and rollout.kv_cache_mib << 20 > free:
        raise ConfigError(
            f"rollout.kv_cache_mib={rollout.kv_cache_mib}: this machine has {free >> 20} MiB of free memory. "
            "Lower the value."
        )
    if blocks * block > rollout.kv_cache_mib << 20:
        raise ConfigError(
            f"rollout.kv_cache_mib={rollout.kv_cache_mib}: a sequence of rollout.max_model_len="
            f"{rollout.max_model_len} tokens needs {-(-blocks * block >> 20)} MiB of a worker's KV cache. Raise "
            "rollout.kv_cache_mib to at least that (to several times that for many requests at once), or lower "
            "rollout.max_model_len."
        )


def _known(model: PreTrainedConfig) -> bool:
    """Whether the model belongs to a family whose vLLM class rlsync knows."""
    return any(name in SUPPORTED for name in model.architectures or [])


def _window(model: PreTrainedConfig) -> int:
    """The sliding window of the config; 0 if it has none."""
    return model.to_dict().get("sliding_window") or 0


def _check_windows(field: str, model: PreTrainedConfig) -> None:
    """Check that transformers and vLLM give each layer the same window; vLLM has one window for all layers.

    In transformers, Qwen reads the windows from `layer_types`, Mistral applies the window to all layers, and Llama
    ignores it.
    """
    values, layers = model.to_dict(), model.num_hidden_layers
    types = values.get("layer_types") or []
    everywhere = model.model_type == "mistral" and _window(model) > 0 and not types
    sliding = layers if everywhere else types.count(_SLIDING)
    if sliding not in (0, layers) or (sliding == 0) != (_window(model) == 0):
        raise ConfigError(
            f"{field}: config.json gives {sliding} of its {layers} layers a sliding window of {_window(model) or None} "
            f"(sliding_window, layer_types, max_window_layers={values.get('max_window_layers')}), but vLLM supports a "
            "window only in all layers or in none. Use another model. If all sequences are shorter than the window, "
            "you can set use_sliding_window=false or sliding_window=null in config.json."
        )


def _check_divides(field: str, intermediate_size: int, tp: int) -> None:
    if intermediate_size % tp:
        raise ConfigError(
            f"rollout.tp={tp}: the value must divide the intermediate_size={intermediate_size} of {field}"
        )
