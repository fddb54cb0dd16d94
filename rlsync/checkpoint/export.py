"""Write a model as Hugging Face safetensors, for transformers and stock vLLM."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict
from transformers import AutoTokenizer, PreTrainedConfig


def export_model(
    state: dict[str, torch.Tensor], config: PreTrainedConfig, dtype: torch.dtype, source: str, folder: Path
) -> None:
    """Write weights, config and tokenizer.

    Args:
        state: Hugging Face names to tensors in `dtype`; tied tensors once.
        source: the model that training started from; its tokenizer is copied.
        folder: appears only when it is complete.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_torch_state_dict(state, partial)
    exported = type(config).from_dict(config.to_dict())
    exported.dtype = dtype
    exported.save_pretrained(partial)
    AutoTokenizer.from_pretrained(source).save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
