"""The plan of a weight sync by messages: the order of the tensors, their buckets, and each trainer rank's rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rlsync.kernels.row_ops import share_of

BUCKET_BYTES = 64 << 20
GPU_BUCKET_BYTES = 256 << 20
"""Buckets are larger on GPUs, because each message costs a handshake."""


@dataclass(slots=True, kw_only=True)
class ParamSpec:
    """Name, shape and dtype of a canonical tensor in a weight sync."""

    name: str
    """Hugging Face name."""
    shape: tuple[int, ...]
    """Shape of the whole tensor."""
    dtype: str
    """Compute dtype: `bfloat16` or `float32`."""


@dataclass(slots=True, kw_only=True)
class SyncPlan:
    """Buckets of tensors that are sent together.

    The rows of a bucket that a trainer rank holds are one flat message. The messages of a bucket are padded to one
    length.
    """

    buckets: list[list[ParamSpec]]
    """The tensors of each bucket, in order; a bucket has one dtype."""
    ranks: int
    """Number of trainer ranks."""

    def rows(self, spec: ParamSpec, rank: int) -> tuple[int, int]:
        """First row that `rank` holds under FSDP2's sharding of dim 0, and the one after the last."""
        return share_of(spec.shape[0], self.ranks, rank)

    def message_elements(self, bucket: list[ParamSpec]) -> int:
        """Number of elements of a padded message, which is that of rank 0, since it has the most rows."""
        return sum(_rows_numel(spec, *self.rows(spec, 0)) for spec in bucket)

    @property
    def largest_bytes(self) -> int:
        """Largest size in bytes of all messages of a bucket together."""
        return max(
            self.ranks * self.message_elements(bucket) * torch_dtype(bucket[0].dtype).itemsize
            for bucket in self.buckets
        )

    def assemble(self, bucket: list[ParamSpec], messages: list[torch.Tensor]) -> list[tuple[str, torch.Tensor]]:
        """Put together the whole tensors of a bucket.

        Args:
            bucket: the tensors of the bucket.
            messages: the message of each rank, [message_elements(bucket)] in the bucket's dtype.

        Returns:
            Names and tensors, in the bucket's order.
        """
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
    """Group consecutive tensors of one dtype into buckets of at most `bucket_bytes`; a larger tensor has its own."""
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
    """PyTorch's dtype for the name in a ParamSpec."""
    return {"bfloat16": torch.bfloat16, "float32": torch.float32}[name]


def _rows_numel(spec: ParamSpec, begin: int, end: int) -> int:
    return (end - begin) * torch.Size(spec.shape[1:]).numel()
