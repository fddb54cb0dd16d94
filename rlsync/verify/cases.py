"""The cases of `rlsync parity`: tiny random models of each family, and requests that bring about special situations."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, MistralConfig, PreTrainedConfig, Qwen2Config, Qwen3Config
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from rlsync.config.cluster import Device
from rlsync.config.kernels import KernelsConfig, RowParallel
from rlsync.config.model import ComputeDtype, ModelConfig, ModelSource
from rlsync.config.rollout import RolloutConfig
from rlsync.models.paths import ModelPaths
from rlsync.rollout.settings import EngineSettings
from rlsync.samples import RolloutRequest
from rlsync.trainer.settings import TrainerSettings

_VOCAB = 259
MAX_LEN = 2048
"""Number of positions of the models, which is also the largest length of a sequence."""
QUICK_RESPONSE, FULL_RESPONSE = 16, 32
"""Number of tokens of most responses: the first without `--full`, the second with it."""
CHUNK = 128
"""Value of rollout.max_num_batched_tokens. Prompts that are longer are prefilled in chunks."""
BLOCK = 16
"""Number of tokens in a block of the KV cache."""
_INIT_STD = 0.15


class Family(StrEnum):
    """A model family, with the feature that it adds to the cases."""

    qwen2 = "qwen2"
    """Biases of the q, k and v projections; tied embeddings."""
    qwen3 = "qwen3"
    """Norms of queries and keys; tied embeddings."""
    llama = "llama"
    """Llama-3 rope scaling; an LM head that is not tied."""
    mistral = "mistral"
    """A sliding window."""


@dataclass(slots=True, frozen=True)
class Cell:
    """One case: a model family, a dtype, a tensor-parallel size and a form of the row-parallel layers."""

    family: Family
    dtype: ComputeDtype
    tp: int
    """Tensor-parallel size of the engine."""
    row_parallel: RowParallel = RowParallel.tree


@dataclass(slots=True)
class Batch:
    """Requests that are submitted together."""

    name: str
    requests: list[RolloutRequest]


def kv_blocks(family: Family) -> int:
    """Size of the KV cache in blocks: one context of 2,048 tokens (or its window) fits, but 32 requests do not.

    Some of the requests are therefore preempted.
    """
    return 40 if family is Family.mistral else 129


def cells_for(device: Device, *, full: bool) -> list[Cell]:
    """The cases for a device. On a GPU they have TP=1 only, because one GPU is used.

    Args:
        device: the device of engines and trainer.
        full: all cases; otherwise a selection of them on a CPU, and bf16 only on a GPU.
    """
    if device is Device.cuda:
        kinds = ComputeDtype if full else [ComputeDtype.bfloat16]
        return [*(Cell(f, d, 1) for f, d in itertools.product(Family, kinds)), _gather_cells()[0]]
    return _full_cells() if full else _quick_cells()


def _full_cells() -> list[Cell]:
    cells = [Cell(f, d, tp) for f, d, tp in itertools.product(Family, ComputeDtype, (1, 2, 4))]
    return [*cells, *_gather_cells()]


def _quick_cells() -> list[Cell]:
    """A selection in which all pairs of family and dtype, of family and TP, and of dtype and TP occur."""
    dtypes = itertools.cycle(ComputeDtype)
    cells = []
    for family in Family:
        cells += [Cell(family, next(dtypes), tp) for tp in (1, 2, 4)]
    return [*cells, *_gather_cells()[-1:]]


def _gather_cells() -> list[Cell]:
    return [Cell(Family.llama, ComputeDtype.bfloat16, tp, RowParallel.gather) for tp in (1, 3)]


def build_model(cell: Cell, root: Path) -> Path:
    """Write the cell's random model, unless it exists, and return its folder. Weights are the same on every machine."""
    gathers = cell.row_parallel is RowParallel.gather
    folder = root / f"{cell.family}{'_gather' if gathers else ''}"
    if not folder.exists():
        model = AutoModelForCausalLM.from_config(_model_config(cell.family, gathers))
        generator = np.random.Generator(np.random.Philox(7))
        with torch.no_grad():
            for name, param in model.named_parameters():
                centre = 1.0 if name.endswith("norm.weight") else 0.0
                param.copy_(torch.from_numpy(generator.normal(centre, _INIT_STD, param.shape)))
        model.save_pretrained(folder)
    return folder


def _model_config(family: Family, gathers: bool) -> PreTrainedConfig:
    # The model of the gather form has 6 heads for TP=3, and an input size of 201, which 8 leaves do not divide.
    heads, kv_heads, intermediate, vocab = (6, 3, 201, 192) if gathers else (4, 2, 256, _VOCAB)
    shape: dict[str, Any] = {
        "vocab_size": vocab,
        "hidden_size": 102 if gathers else 64,
        "num_hidden_layers": 2,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": 32,
        "intermediate_size": intermediate,
        "max_position_embeddings": MAX_LEN,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    scaling = {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 256,
    }
    match family:
        case Family.qwen2:
            return Qwen2Config(**(shape | {"hidden_size": 128}), tie_word_embeddings=True)
        case Family.qwen3:
            return Qwen3Config(**shape, tie_word_embeddings=True)
        case Family.llama:
            return LlamaConfig(**shape, rope_parameters=scaling, tie_word_embeddings=False)
        case Family.mistral:
            return MistralConfig(**shape, sliding_window=40, tie_word_embeddings=False)


def engine_settings(cell: Cell, model: Path, device: Device) -> EngineSettings:
    """The settings of the cell's engine, which serves the model in the folder `model`."""
    kernels = KernelsConfig(row_parallel=cell.row_parallel)
    return EngineSettings(
        model_path=str(model),
        model=ModelConfig(source=ModelSource.huggingface, path=str(model), dtype=cell.dtype),
        kernels=kernels,
        leaves=kernels.leaves(cell.tp),
        device=device,
        rollout=RolloutConfig(
            tp=cell.tp,
            temperature=0.8,
            max_tokens=64,
            max_model_len=MAX_LEN,
            max_num_seqs=32,
            max_num_batched_tokens=CHUNK,
            block_size=BLOCK,
        ),
    )


def trainer_settings(engine: EngineSettings) -> TrainerSettings:
    """The settings of a trainer rank that scores what the engine sampled."""
    return TrainerSettings(
        models=ModelPaths(policy=engine.model_path),
        model=engine.model,
        kernels=engine.kernels,
        leaves=engine.leaves,
        device=engine.device,
        temperature=engine.rollout.temperature,
        max_tokens=engine.rollout.max_tokens,
    )


def batches(vocab: int, response: int) -> list[Batch]:
    """The batches of requests for an engine, in order.

    Args:
        vocab: size of the vocabulary.
        response: number of tokens of most answers.
    """
    alone = _request(vocab, 50, 30, response)
    crowd = [_request(vocab, seed, 40 + 7 * seed, response) for seed in range(32)]
    # The same prompts with other seeds, the latest first, because their blocks are still cached.
    again = [_request(vocab, seed, 40 + 7 * seed, 8, draw_seed=1000 + seed) for seed in range(31, 23, -1)]
    # Short prompts that outgrow their first blocks, so that requests are preempted with a sliding window too.
    growing = [_request(vocab, 60 + seed, 26, 40) for seed in range(32)]
    return [
        Batch("batch of 1", [alone]),
        Batch("context of 2,000", [_request(vocab, 51, 2000 - response, response)]),
        Batch("batch of 32", crowd),
        Batch("prefix again", again),
        Batch("growing", growing),
        Batch("batch of 1 again", [alone]),
    ]


def _request(vocab: int, seed: int, length: int, max_tokens: int, draw_seed: int | None = None) -> RolloutRequest:
    prompt = [(seed * 31 + i * i + i // 5) % vocab for i in range(length)]
    return RolloutRequest(
        prompt=prompt, seed=seed if draw_seed is None else draw_seed, max_tokens=max_tokens, stop_ids=[]
    )
