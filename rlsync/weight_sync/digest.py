"""Digests that add up: a position-keyed sum modulo 2^64 over the bits of a tensor.

The digest of a whole tensor is the sum of the digests of its disjoint parts, each keyed by its place in the
whole. So FSDP shards and TP shards are compared without gathering either.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from rlsync.errors import DivergenceError
from rlsync.types import TensorDigest

_MODULUS = 1 << 64
_PIECE = 1 << 24
"""Elements digested at a time: their keys take eight bytes each."""
_GOLDEN = 0x9E3779B97F4A7C15 - _MODULUS  # 2^64 / golden ratio, as a signed 64-bit integer


def digest_part(name: str, part: torch.Tensor, *, row: int, column: int, columns: int) -> TensorDigest:
    """Digest of a rectangle of a tensor.

    Args:
        part: [r, c], or [r] for a vector; bf16 or fp32.
        row, column: where its first element lies in the whole.
        columns: of the whole (1 for a vector).
    """
    part = part.detach().reshape(part.shape[0], columns if part.ndim == 1 else part.shape[1])
    bits = part.contiguous().view(torch.int16 if part.dtype == torch.bfloat16 else torch.int32)
    rows = max(1, _PIECE // max(1, part.shape[1]))
    pieces = range(0, len(bits), rows)
    value = sum(_keyed_sum(bits[b : b + rows], row + b, column, columns) for b in pieces) % _MODULUS
    return TensorDigest(
        name=name, rows=(row, row + part.shape[0]), columns=(column, column + part.shape[1]), value=value
    )


def _keyed_sum(bits: torch.Tensor, row: int, column: int, columns: int) -> int:
    """Sum of the bits [r, c], each times a key of its place, modulo 2^64."""
    index = (torch.arange(row, row + bits.shape[0], device=bits.device) * columns)[:, None]
    index = index + torch.arange(column, column + bits.shape[1], device=bits.device)
    key = index * _GOLDEN
    key = (key ^ (key >> 29)) | 1
    return int((bits.to(torch.int64) * key).sum())


def combine(parts: Iterable[TensorDigest]) -> dict[str, int]:
    """Whole-tensor digests from parts. A part reported twice (a replica) counts once.

    Raises:
        DivergenceError: two replicas of one part differ.
    """
    unique: dict[tuple[str, tuple[int, int], tuple[int, int]], int] = {}
    for part in parts:
        key = (part.name, part.rows, part.columns)
        if unique.setdefault(key, part.value) != part.value:
            raise DivergenceError(
                f"weight sync: two workers hold different values of {part.name}, rows {part.rows}, "
                f"columns {part.columns}"
            )
    totals: dict[str, int] = {}
    for (name, _, _), value in unique.items():
        totals[name] = (totals.get(name, 0) + value) % _MODULUS
    return totals


def differing(trainer: dict[str, int], rollout: dict[str, int]) -> list[str]:
    """Names whose digests differ, or that only one side has."""
    return sorted(n for n in trainer.keys() | rollout.keys() if trainer.get(n) != rollout.get(n))
