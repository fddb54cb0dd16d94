"""Shapes of well-known models, with random weights: speed and bits do not need trained ones."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig, Qwen2Config, Qwen3Config

_QWEN = {"vocab_size": 151936, "max_position_embeddings": 40960, "bos_token_id": None, "eos_token_id": None}
_LLAMA_ROPE = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip


def _qwen3(hidden: int, layers: int, heads: int, intermediate: int, *, tied: bool) -> PreTrainedConfig:
    return Qwen3Config(
        **_QWEN, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=8,
        head_dim=128, intermediate_size=intermediate, tie_word_embeddings=tied,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
    )  # fmt: skip


def _qwen2(hidden: int, layers: int, heads: int, intermediate: int) -> PreTrainedConfig:
    return Qwen2Config(
        **_QWEN, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=2,
        intermediate_size=intermediate, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
    )  # fmt: skip


def config_of(shape: str) -> PreTrainedConfig:
    match shape:
        case "qwen3_0_6b":
            return _qwen3(1024, 28, 16, 3072, tied=True)
        case "qwen3_1_7b":
            return _qwen3(2048, 28, 16, 6144, tied=True)
        case "qwen3_8b":
            return _qwen3(4096, 36, 32, 12288, tied=False)
        case "qwen2_5_0_5b":
            return _qwen2(896, 24, 14, 4864)
        case "qwen2_5_1_5b":
            return _qwen2(1536, 28, 12, 8960)
        case "llama_3_2_1b":
            return LlamaConfig(
                vocab_size=128256, hidden_size=2048, num_hidden_layers=16, num_attention_heads=32,
                num_key_value_heads=8, head_dim=64, intermediate_size=8192, max_position_embeddings=131072,
                rope_parameters=_LLAMA_ROPE, tie_word_embeddings=True, bos_token_id=None, eos_token_id=None,
            )  # fmt: skip
        case "tiny":
            return Qwen3Config(
                **(_QWEN | {"vocab_size": 512}), hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
                num_key_value_heads=2, head_dim=32, intermediate_size=128, tie_word_embeddings=True,
            )  # fmt: skip
    raise ValueError(f"no shape {shape!r}")


def build(shape: str, folder: Path, device: str, layers: int | None = None) -> Path:
    """Write a model of this shape with random bf16 weights, unless it is there; `layers` cuts its depth."""
    if not (folder / "config.json").is_file():
        config = config_of(shape)
        if layers:
            config.num_hidden_layers = layers
            config.layer_types = ["full_attention"] * layers
        torch.manual_seed(0)
        with torch.device(device):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        model.save_pretrained(folder)
    return folder
