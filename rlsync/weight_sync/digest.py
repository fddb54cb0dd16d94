"""Digests that add up: a position-keyed sum modulo 2^64 over the bits of a tensor.

The digest of a whole tensor is the sum of the digests of its disjoint parts, each keyed by its place in the
whole. So FSDP shards and TP shards are compared without gathering either.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from rlsync.errors import DivergenceError
from rlsync.kernels.keyed_sum import keyed_sum
from rlsync.types import TensorDigest

_MODULUS = 1 << 64


def digest_part(name: str, part: torch.Tensor, *, row: int, column: int, columns: int) -> TensorDigest:
    """Digest of a rectangle of a tensor.

    Args:
        part: [r, c], or [r] for a vector; bf16 or fp32.
        row, column: where its first element lies in the whole.
        columns: of the whole (1 for a vector).
    """
    part = part.detach().reshape(part.shape[0], columns if part.ndim == 1 else part.shape[1])
    bits = part.contiguous().view(torch.int16 if part.dtype == torch.bfloat16 else torch.int32)
    value = keyed_sum(bits, row, column, columns)
    return TensorDigest(
        name=name, rows=(row, row + part.shape[0]), columns=(column, column + part.shape[1]), value=value
    )


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
