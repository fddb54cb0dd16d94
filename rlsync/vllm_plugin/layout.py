"""Maps the parameters of a vLLM worker to parts of canonical tensors, for digests and direct sync."""

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
from rlsync.weight_sync.digest import Part, whole_rows


def local_parts(model: torch.nn.Module) -> Iterator[Part]:
    """The parameters of a worker's model as parts of canonical tensors; the values are views of the parameters."""
    packed: dict[str, list[str]] = model.packed_modules_mapping  # type: ignore[assignment]
    for name, param in model.named_parameters():  # a tied tensor appears once, as in the canonical list
        owner_name, _, kind = name.rpartition(".")
        owner = model.get_submodule(owner_name)
        parent, _, leaf = owner_name.rpartition(".")
        names = [f"{parent}.{sub}.{kind}" for sub in packed.get(leaf, [leaf])]
        match owner:
            case QKVParallelLinear() | MergedColumnParallelLinear():
                yield from _stacked(names, param, owner)
            case RowParallelLinear() if param.ndim == 2:
                yield _row_parallel(name, param, owner)
            case ColumnParallelLinear():
                yield whole_rows(name, param.data, owner.tp_rank * param.shape[0])
            case VocabParallelEmbedding():
                shard = owner.shard_indices
                count = shard.org_vocab_end_index - shard.org_vocab_start_index
                yield whole_rows(name, param.data[:count], shard.org_vocab_start_index)
            case _:
                yield whole_rows(name, param.data)


def _stacked(
    names: list[str], param: torch.Tensor, owner: QKVParallelLinear | MergedColumnParallelLinear
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
        yield whole_rows(name, param.data[offset : offset + size], rank * size)
        offset += size


def _row_parallel(name: str, param: torch.Tensor, owner: RowParallelLinear) -> Part:
    if isinstance(owner, InvariantRowParallelLinear) and owner.gathers:
        begin, end = owner.column_range
        return whole_rows(name, param.data[: end - begin], begin)
    column = owner.tp_rank * param.shape[1]
    return Part(name=name, values=param.data, row=0, column=column, columns=owner.input_size)
