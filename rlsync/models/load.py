"""Loads Hugging Face models and their configs from a folder or the hub."""

from __future__ import annotations

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)

from rlsync.config.kernels import KernelMode
from rlsync.config.model import MAIN
from rlsync.errors import ConfigError, first_line
from rlsync.models.install import SUPPORTED, SUPPORTED_CRITICS, check_supported
from rlsync.paths import expanded

VALUE_HEAD = "score.weight"
"""Name of the critic's value head, [1, hidden]."""


def resolved(path: str) -> str:
    """The absolute path of a folder, which processes with another working directory find too; a hub id is unchanged."""
    folder = expanded(path)
    return str(folder.resolve()) if folder.exists() else path


def load_config(
    path: str,
    mode: KernelMode,
    revision: str = MAIN,
    *,
    field: str = "model.path",
    supported: tuple[str, ...] = SUPPORTED,
) -> PreTrainedConfig:
    """Read and check a model's config.

    Args:
        path: folder or hub id of the model.
        mode: which kernels the model is meant for.
        revision: revision of a hub id, here and in the other functions of this file; ignored for a folder.
        field: configuration field of the path, for messages.
        supported: architectures that the model may have with exact kernels.

    Raises:
        ConfigError: there is no model at `path`, the model needs code of its own, or exact kernels do not support it.
    """
    if path.startswith((".", "/", "~")) and not (expanded(path) / "config.json").is_file():
        raise ConfigError(
            f"{field}={path}: no config.json was found. Give a folder with a Hugging Face model, or a hub id."
        )
    config = _read_config(path, field, revision)
    if mode is KernelMode.invariant:
        check_supported(config, supported)
    return config


def load_classifier_config(path: str, field: str) -> PreTrainedConfig:
    """Read a reward model's config.

    Raises:
        ConfigError: there is no model at `path`, or it needs code of its own.
    """
    return _read_config(path, field, MAIN)


def _read_config(path: str, field: str, revision: str) -> PreTrainedConfig:
    try:
        config = AutoConfig.from_pretrained(resolved(path), revision=revision, trust_remote_code=False)
        text = config.get_text_config()
        pad = text.pad_token_id
        if pad is not None and not 0 <= pad < text.vocab_size:
            text.pad_token_id = None  # an id such as -1 would make the embedding fail, and nothing is padded here
    except Exception as error:  # a config.json written by others may raise any exception
        if expanded(path).is_dir():
            message = f"the model's config.json cannot be read ({first_line(error)})"
        else:
            at = "" if revision == MAIN else f" at model.revision={revision}"
            message = f"there is no such folder, and the model cannot be loaded as a hub id{at} ({first_line(error)})"
        raise ConfigError(f"{field}={path}: {message}") from error
    return config


def load_model(path: str, mode: KernelMode, revision: str = MAIN) -> PreTrainedModel:
    """Load a causal LM with fp32 master weights.

    Raises:
        ConfigError: as `load_config`.
    """
    return AutoModelForCausalLM.from_pretrained(
        resolved(path),
        revision=revision,
        config=load_config(path, mode, revision),
        dtype=torch.float32,
        attn_implementation=_attention(mode),
    )


def load_critic_config(path: str, mode: KernelMode, revision: str = MAIN) -> PreTrainedConfig:
    """Read and check the config of the model that a critic starts from.

    Raises:
        ConfigError: as `load_config`, and for a classifier with several labels.
    """
    config = load_config(path, mode, revision, field="critic.path", supported=SUPPORTED_CRITICS)
    classifies = any(name.endswith("ForSequenceClassification") for name in config.architectures or [])
    if classifies and config.num_labels != 1:
        raise ConfigError(
            f"critic.path={path}: the model gives {config.num_labels} scores, but a critic gives one value. Use a "
            "classifier with one label, or a causal model."
        )
    config.num_labels = 1
    return config


def load_critic(path: str, mode: KernelMode, revision: str = MAIN) -> PreTrainedModel:
    """Load a sequence classifier with fp32 master weights, whose one label is the value.

    Args:
        path: folder or hub id of such a classifier, or of a causal LM, whose head is replaced by a value head of zeros.
        mode: which kernels the model is meant for.
        revision: revision of a hub id.

    Raises:
        ConfigError: as `load_critic_config`, or weights other than those of the value head are missing.
    """
    model, report = AutoModelForSequenceClassification.from_pretrained(
        resolved(path),
        revision=revision,
        config=load_critic_config(path, mode, revision),
        dtype=torch.float32,
        attn_implementation=_attention(mode),
        output_loading_info=True,
    )
    missing = set(report["missing_keys"])
    if missing - {VALUE_HEAD}:
        raise ConfigError(
            f"critic.path={path}: weights are missing: {', '.join(sorted(missing)[:5])}. Copy the whole model again."
        )
    if missing:
        torch.nn.init.zeros_(model.score.weight)
    model.config.architectures = [type(model).__name__]
    return model


def _attention(mode: KernelMode) -> str | None:
    return "sdpa" if mode is KernelMode.native else None
