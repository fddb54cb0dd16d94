"""Write a model as Hugging Face safetensors, for transformers and stock vLLM."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import save_file
from transformers import AutoTokenizer, PreTrainedConfig

from rlsync.config.lora import LoraConfig
from rlsync.config.model import MAIN


def export_model(
    state: dict[str, torch.Tensor],
    config: PreTrainedConfig,
    dtype: torch.dtype,
    source: str,
    folder: Path,
    *,
    revision: str = MAIN,
) -> None:
    """Write weights, config and tokenizer.

    Args:
        state: Hugging Face names to tensors in `dtype`; tied tensors once.
        source, revision: the model that training started from; its tokenizer is copied.
        folder: appears only when it is complete.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_torch_state_dict(state, partial)
    exported = type(config).from_dict(config.to_dict())
    exported.dtype = dtype
    exported.save_pretrained(partial)
    AutoTokenizer.from_pretrained(source, revision=revision).save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def export_adapters(adapters: dict[str, torch.Tensor], config: LoraConfig, source: str, folder: Path) -> None:
    """Write adapters as peft's `PeftModel.from_pretrained` reads them.

    Args:
        adapters: peft's names to tensors.
        source: the model that they belong to.
    """
    folder.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in adapters.items()}, folder / "adapter_model.safetensors")
    description = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": source,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": 0.0,
        "target_modules": list(config.targets),
        "bias": "none",
        "inference_mode": True,
    }
    (folder / "adapter_config.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
