"""Make the policy's Hugging Face model: from a folder, the hub, or rlsync's own tiny model."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from rlsync.config.kernels import KernelMode
from rlsync.errors import ConfigError
from rlsync.models.install import check_supported


def load_config(path: str, mode: KernelMode) -> PreTrainedConfig:
    """Read and check a model's config.

    Raises:
        ConfigError: nothing to load at `path`, or an architecture that exact kernels do not cover.
    """
    if path.startswith((".", "/", "~")) and not (Path(path).expanduser() / "config.json").is_file():
        raise ConfigError(
            f"model.path={path}: no config.json there. Give a folder with a Hugging Face model, or a hub id."
        )
    try:
        config = AutoConfig.from_pretrained(Path(path).expanduser() if Path(path).expanduser().exists() else path)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"model.path={path}: no such folder, and it cannot be loaded as a hub id ({_first_line(error)})"
        ) from error
    if mode is KernelMode.invariant:
        check_supported(config)
    return config


def load_model(path: str, mode: KernelMode) -> PreTrainedModel:
    """The causal LM with fp32 master weights."""
    config = load_config(path, mode)
    source = Path(path).expanduser()
    attention = "sdpa" if mode is KernelMode.native else None
    return AutoModelForCausalLM.from_pretrained(
        source if source.exists() else path, config=config, dtype=torch.float32, attn_implementation=attention
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
