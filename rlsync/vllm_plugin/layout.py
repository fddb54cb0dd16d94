"""Where each part of vLLM's local parameters lies in the Hugging Face tensors: for the digest of what kernels read."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from vllm.model_executor.layers.linear import (
    ColumnParallelLinear,
    MergedColumnParallelLinear,
    QKVParallelLinear,
    RowParallelLinear,
)
from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

from rlsync.vllm_plugin.linear import InvariantRowParallelLinear
from rlsync.weight_sync.digest import Part


def local_parts(model: torch.nn.Module) -> Iterator[Part]:
    """Every parameter of a vLLM model (or its TP shard): views, as parts of canonical tensors."""
    packed: dict[str, list[str]] = model.packed_modules_mapping
    for name, param in model.named_parameters():  # a tied tensor appears once, as in the canonical list
        owner_name, _, kind = name.rpartition(".")
        owner = model.get_submodule(owner_name)
        parent, _, leaf = owner_name.rpartition(".")
        names = [f"{parent}.{sub}.{kind}" for sub in packed.get(leaf, [leaf])]
        columns = 1 if param.ndim == 1 else _full_columns(owner, param)
        match owner:
            case QKVParallelLinear() | MergedColumnParallelLinear():
                yield from _stacked(names, param, owner, columns)
            case RowParallelLinear() if param.ndim == 2:
                yield _row_parallel(name, param, owner, columns)
            case ColumnParallelLinear():
                yield Part(name=name, values=param.data, row=owner.tp_rank * param.shape[0], columns=columns)
            case VocabParallelEmbedding():
                shard = owner.shard_indices
                count = shard.org_vocab_end_index - shard.org_vocab_start_index
                yield Part(name=name, values=param.data[:count], row=shard.org_vocab_start_index, columns=columns)
            case _:
                yield Part(name=name, values=param.data, row=0, columns=columns)


def _full_columns(owner: torch.nn.Module, param: torch.Tensor) -> int:
    return owner.input_size if isinstance(owner, RowParallelLinear) else param.shape[1]


def _stacked(
    names: list[str], param: torch.Tensor, owner: QKVParallelLinear | MergedColumnParallelLinear, columns: int
) -> Iterator[Part]:
    if isinstance(owner, QKVParallelLinear):
        q, kv = owner.num_heads * owner.head_size, owner.num_kv_heads * owner.head_size
        sizes = [q, kv, kv]
        kv_rank = owner.tp_rank // owner.num_kv_head_replicas
        ranks = [owner.tp_rank, kv_rank, kv_rank]
    else:
        sizes = [size // owner.tp_size for size in owner.output_sizes]
        ranks = [owner.tp_rank] * len(sizes)
    offset = 0
    for name, size, rank in zip(names, sizes, ranks, strict=True):
        yield Part(name=name, values=param.data[offset : offset + size], row=rank * size, columns=columns)
        offset += size


def _row_parallel(name: str, param: torch.Tensor, owner: RowParallelLinear, columns: int) -> Part:
    if isinstance(owner, InvariantRowParallelLinear) and owner.gathers:
        begin, end = owner.column_range
        return Part(name=name, values=param.data[: end - begin], row=begin, columns=columns)
    return Part(name=name, values=param.data, row=0, column=owner.tp_rank * param.shape[1], columns=columns)
