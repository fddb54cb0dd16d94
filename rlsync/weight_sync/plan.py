"""What travels in a weight sync, in which order, and which rows each trainer rank holds."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rlsync.kernels.row_ops import share_of

BUCKET_BYTES = 64 << 20
GPU_BUCKET_BYTES = 256 << 20
"""Few messages, as each costs a handshake."""


@dataclass(slots=True, kw_only=True)
class ParamSpec:
    """A canonical tensor as it travels: compute dtype, Hugging Face name."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    """`bfloat16` or `float32`."""


@dataclass(slots=True, kw_only=True)
class SyncPlan:
    """Buckets of tensors. Every trainer rank's rows of a bucket are a flat message; messages of a bucket are padded to
    one length."""

    buckets: list[list[ParamSpec]]
    ranks: int

    def rows(self, spec: ParamSpec, rank: int) -> tuple[int, int]:
        """Rows that `rank` holds under FSDP2's dim-0 sharding (torch.chunk)."""
        return share_of(spec.shape[0], self.ranks, rank)

    def message_elements(self, bucket: list[ParamSpec]) -> int:
        """Of a padded message: rank 0 has the most rows."""
        return sum(_rows_numel(spec, *self.rows(spec, 0)) for spec in bucket)

    @property
    def largest_bytes(self) -> int:
        """Of a bucket's messages together."""
        return max(
            self.ranks * self.message_elements(bucket) * torch_dtype(bucket[0].dtype).itemsize
            for bucket in self.buckets
        )

    def assemble(self, bucket: list[ParamSpec], messages: list[torch.Tensor]) -> list[tuple[str, torch.Tensor]]:
        """Whole tensors from all ranks' messages (of the bucket's dtype)."""
        offsets = [0] * self.ranks
        tensors: list[tuple[str, torch.Tensor]] = []
        for spec in bucket:
            parts = []
            for rank, message in enumerate(messages):
                begin, end = self.rows(spec, rank)
                numel = _rows_numel(spec, begin, end)
                parts.append(message[offsets[rank] : offsets[rank] + numel].view(end - begin, *spec.shape[1:]))
                offsets[rank] += numel
            tensors.append((spec.name, torch.cat(parts)))
        return tensors


def make_plan(specs: list[ParamSpec], ranks: int, bucket_bytes: int = BUCKET_BYTES) -> SyncPlan:
    """Consecutive tensors of one dtype share a bucket until it is full."""
    buckets: list[list[ParamSpec]] = []
    used = bucket_bytes
    for spec in specs:
        size = torch.Size(spec.shape).numel() * torch_dtype(spec.dtype).itemsize
        if used + size > bucket_bytes or buckets[-1][0].dtype != spec.dtype:
            buckets.append([])
            used = 0
        buckets[-1].append(spec)
        used += size
    return SyncPlan(buckets=buckets, ranks=ranks)


def torch_dtype(name: str) -> torch.dtype:
    return {"bfloat16": torch.bfloat16, "float32": torch.float32}[name]


def _rows_numel(spec: ParamSpec, begin: int, end: int) -> int:
    return (end - begin) * torch.Size(spec.shape[1:]).numel()
