"""Make the policy's Hugging Face model: from a folder, the hub, or rlsync's own tiny model."""

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
from rlsync.errors import ConfigError
from rlsync.models.install import SUPPORTED, SUPPORTED_CRITICS, check_supported
from rlsync.paths import expanded

VALUE_HEAD = "score.weight"
"""[1, hidden]"""


def resolved(path: str) -> str:
    """A folder by its whole path, for processes that run elsewhere; a hub id as it is."""
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
        revision: of a hub id, here and below; it says nothing about a folder.
        field: that errors name.
        supported: architectures, with exact kernels.
    Raises:
        ConfigError: nothing to load at `path`, code that would have to run, or an architecture that exact kernels do
            not cover.
    """
    if path.startswith((".", "/", "~")) and not (expanded(path) / "config.json").is_file():
        raise ConfigError(
            f"{field}={path}: no config.json there. Give a folder with a Hugging Face model, or a hub id."
        )
    config = _read_config(path, field, revision)
    if mode is KernelMode.invariant:
        check_supported(config, supported)
    return config


def load_classifier_config(path: str, field: str) -> PreTrainedConfig:
    """Read a reward model's config; raises ConfigError as load_config does."""
    return _read_config(path, field, MAIN)


def _read_config(path: str, field: str, revision: str) -> PreTrainedConfig:
    try:
        config = AutoConfig.from_pretrained(resolved(path), revision=revision, trust_remote_code=False)
        text = config.get_text_config()
        pad = text.pad_token_id
        if pad is not None and not 0 <= pad < text.vocab_size:
            text.pad_token_id = None  # such as -1; nothing is padded here, and an embedding refuses it
    except Exception as error:  # what a stranger's config.json may raise has many types
        if expanded(path).is_dir():
            told = f"its config.json cannot be read ({_first_line(error)})"
        else:
            at = "" if revision == MAIN else f" at model.revision={revision}"
            told = f"no such folder, and it cannot be loaded as a hub id{at} ({_first_line(error)})"
        raise ConfigError(f"{field}={path}: {told}") from error
    return config


def load_model(path: str, mode: KernelMode, revision: str = MAIN) -> PreTrainedModel:
    """The causal LM with fp32 master weights."""
    return AutoModelForCausalLM.from_pretrained(
        resolved(path),
        revision=revision,
        config=load_config(path, mode, revision),
        dtype=torch.float32,
        attn_implementation=_attention(mode),
    )


def load_critic_config(path: str, mode: KernelMode, revision: str = MAIN) -> PreTrainedConfig:
    """Raises ConfigError as load_config does, and for a classifier of several labels."""
    config = load_config(path, mode, revision, field="critic.path", supported=SUPPORTED_CRITICS)
    classifies = any(name.endswith("ForSequenceClassification") for name in config.architectures or [])
    if classifies and config.num_labels != 1:
        raise ConfigError(f"critic.path={path}: it gives {config.num_labels} scores, and a critic gives one value")
    config.num_labels = 1
    return config


def load_critic(path: str, mode: KernelMode, revision: str = MAIN) -> PreTrainedModel:
    """A sequence classifier with one label, the value, and fp32 master weights.

    Args:
        path: of one, or of a causal LM, whose head is left out for a value head of zeros.
    Raises:
        ConfigError: weights other than the value head's are missing.
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
        raise ConfigError(f"critic.path={path}: weights are missing: {', '.join(sorted(missing)[:5])}")
    if missing:
        torch.nn.init.zeros_(model.score.weight)
    model.config.architectures = [type(model).__name__]
    return model


def _attention(mode: KernelMode) -> str | None:
    return "sdpa" if mode is KernelMode.native else None


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
