"""Writes models and adapters in Hugging Face format, for transformers, PEFT and stock vLLM."""

from __future__ import annotations

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict, snapshot_download
from safetensors.torch import save_file
from transformers import PreTrainedConfig

from rlsync.config.lora import LoraConfig
from rlsync.config.model import MAIN

_WEIGHTS = (  # patterns of weight files
    *("*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.gguf", "*.h5", "*.msgpack", "*.onnx", "*.npz"),
    *("*.safetensors.*", "*.bin.*", "*.onnx_data"),
)
_LEFT = (*_WEIGHTS, "config.json", "adapter_config.json", "progress.json")
"""Files of a model's folder that are not copied into a checkpoint."""
_TEMPLATES = "additional_chat_templates"


def export_model(
    state: dict[str, torch.Tensor],
    config: PreTrainedConfig,
    dtype: torch.dtype,
    source: str,
    folder: Path,
    *,
    revision: str = MAIN,
) -> None:
    """Write weights and config, and copy the other files of the model from which training started.

    These are the tokenizer, the generation config (so that the same tokens end a response), chat templates and the
    licence.

    Args:
        state: tensors in `dtype` by Hugging Face name; tied tensors once.
        config: config of the model.
        dtype: compute dtype, which the written config names.
        source, revision: path and revision of the model from which training started.
        folder: the folder to write, which appears only when it is complete. A link there is removed, not followed.
    """
    partial = folder.with_name(folder.name + ".partial")
    remove_folder(partial)
    partial.mkdir(parents=True)
    _copy_companions(source, revision, partial)
    save_torch_state_dict(state, partial)
    exported = type(config).from_dict(config.to_dict())
    exported.dtype = dtype
    exported.save_pretrained(partial)
    remove_folder(folder)
    partial.rename(folder)


def remove_folder(folder: Path) -> None:
    """Remove a folder with its contents. If it is a link, only the link is removed. It need not exist."""
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _copy_companions(source: str, revision: str, folder: Path) -> None:
    """Copy the files of a model's folder or hub repository, except its weights and the files that rlsync writes."""
    origin = Path(source)
    if not origin.is_dir():
        origin = Path(snapshot_download(source, revision=revision, ignore_patterns=[*_WEIGHTS]))
    for path in origin.iterdir():
        if path.is_file() and not path.name.startswith(".") and not any(fnmatch(path.name, each) for each in _LEFT):
            shutil.copyfile(path, folder / path.name)
    if (origin / _TEMPLATES).is_dir():
        shutil.copytree(origin / _TEMPLATES, folder / _TEMPLATES)


def export_adapters(adapters: dict[str, torch.Tensor], config: LoraConfig, source: str, folder: Path) -> None:
    """Write adapters in the format that `PeftModel.from_pretrained` reads.

    Args:
        adapters: tensors by their names in PEFT.
        config: rank, scale and target layers of the adapters.
        source: path of the model to which they belong.
        folder: the folder to write, which must not exist.
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
