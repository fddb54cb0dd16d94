"""Where each part of vLLM's local parameters lies in the Hugging Face tensors: for the digest of what kernels read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from vllm.model_executor.layers.linear import (
    ColumnParallelLinear,
    MergedColumnParallelLinear,
    QKVParallelLinear,
    RowParallelLinear,
)
from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

from rlsync.types import TensorDigest
from rlsync.vllm_plugin.linear import InvariantRowParallelLinear
from rlsync.weight_sync.digest import digest_part


@dataclass(slots=True)
class LocalPart:
    """A view into a local parameter and its place in the canonical tensor."""

    name: str
    view: torch.Tensor
    row: int
    column: int
    columns: int

    def digest(self) -> TensorDigest:
        return digest_part(self.name, self.view, row=self.row, column=self.column, columns=self.columns)


def local_parts(model: torch.nn.Module) -> Iterator[LocalPart]:
    """Every parameter of a vLLM model (or its TP shard), as parts of canonical tensors."""
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
                yield LocalPart(name, param.data, owner.tp_rank * param.shape[0], 0, columns)
            case VocabParallelEmbedding():
                shard = owner.shard_indices
                count = shard.org_vocab_end_index - shard.org_vocab_start_index
                yield LocalPart(name, param.data[:count], shard.org_vocab_start_index, 0, columns)
            case _:
                yield LocalPart(name, param.data, 0, 0, columns)


def _full_columns(owner: torch.nn.Module, param: torch.Tensor) -> int:
    return owner.input_size if isinstance(owner, RowParallelLinear) else param.shape[1]


def _stacked(
    names: list[str], param: torch.Tensor, owner: QKVParallelLinear | MergedColumnParallelLinear, columns: int
) -> Iterator[LocalPart]:
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
        yield LocalPart(name, param.data[offset : offset + size], rank * size, 0, columns)
        offset += size


def _row_parallel(name: str, param: torch.Tensor, owner: RowParallelLinear, columns: int) -> LocalPart:
    if isinstance(owner, InvariantRowParallelLinear) and owner.gathers:
        begin, end = owner.column_range
        return LocalPart(name, param.data[: end - begin], begin, 0, columns)
    return LocalPart(name, param.data, 0, owner.tp_rank * param.shape[1], columns)
