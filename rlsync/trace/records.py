"""What the ops of a forward pass computed, as digests for each token, and the recorder that collects them.

Activations are not kept. A recorder keeps a 64-bit digest of each op's row of each token, and for each op at most one
row: that of the first token whose digest is not the expected one, or that of a given token.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

import torch

from rlsync.kernels import ops


class Op(IntEnum):
    """The recorded values of a forward pass, in their order within a layer."""

    embed_tokens = 0
    residual = 1
    """The residual stream before attention."""
    input_layernorm = 2
    q_proj = 3
    k_proj = 4
    v_proj = 5
    q_norm = 6
    k_norm = 7
    rope_q = 8
    """The queries after the rotation by their positions."""
    rope_k = 9
    attention = 10
    """The output of attention, before o_proj."""
    o_proj_root = 11
    """A rank's part of o_proj, before the ranks' parts are added."""
    o_proj = 12
    residual_mid = 13
    """The residual stream between attention and the MLP."""
    post_attention_layernorm = 14
    gate_proj = 15
    up_proj = 16
    act = 17
    """SiLU of gate_proj times up_proj."""
    down_proj_root = 18
    """A rank's part of down_proj, before the ranks' parts are added."""
    down_proj = 19
    last_residual = 20
    """The residual stream after the last layer."""
    norm = 21
    """The norm after the last layer."""
    logits = 22
    logprob = 23
    """The log-prob of the sampled token."""


_AFTER = 1 << 20
OUTSIDE_LAYERS = {
    Op.embed_tokens: -1,
    Op.last_residual: _AFTER,
    Op.norm: _AFTER,
    Op.logits: _AFTER,
    Op.logprob: _AFTER,
}
"""The number that takes the place of a layer's for ops outside the layers, so that all ops sort in their order."""


class OpKey(NamedTuple):
    """An op's columns, or the part of them that a TP rank holds."""

    layer: int
    """Number of the layer; see OUTSIDE_LAYERS."""
    op: Op
    shard: int = 0
    """Which part of the op's columns is meant."""
    shards: int = 1
    """Number of parts of the op's columns."""


@dataclass(slots=True, kw_only=True)
class OpRecord:
    """The results of one op on one side, for the tokens of one sequence."""

    key: OpKey
    positions: torch.Tensor
    """[N] int64: positions of the tokens in their sequence."""
    digests: torch.Tensor
    """[N] int64: digest of the bits of each token's row."""
    row: torch.Tensor | None = None
    """[K]: the row that was kept, in the op's dtype; None if there is none."""
    row_position: int = -1
    """Position of the token of that row."""


def op_name(layer: int, op: Op) -> str:
    """Return the name of an op, such as `layers.3.o_proj` or `norm`."""
    return op.name if op in OUTSIDE_LAYERS else f"layers.{layer}.{op.name}"


@dataclass(slots=True)
class _Collected:
    positions: list[torch.Tensor] = field(default_factory=list)
    digests: list[torch.Tensor] = field(default_factory=list)
    row: torch.Tensor | None = None
    row_position: int = -1


class Recorder:
    """Collects the records of one side.

    Args:
        expected: Records of the other side, of all positions in order. Of each op the row of the first token is kept
            whose digest is another.
        rows: The position of the row that is kept of each op, in place of `expected`.
    """

    def __init__(self, expected: list[OpRecord] | None = None, rows: dict[OpKey, int] | None = None) -> None:
        self._expected = {record.key: record.digests for record in expected or ()}
        self._rows = rows or {}
        self._found: dict[OpKey, _Collected] = {}
        self.positions = torch.zeros(0, dtype=torch.int64)
        """[T] int64: positions of the rows of the forward pass that is running."""

    def add(self, layer: int, op: Op, values: torch.Tensor, *, shard: int = 0, shards: int = 1) -> None:
        """Record an op's values [T, ...] of the rows of the running forward pass; `shard` of `shards` columns."""
        key, rows = OpKey(layer, op, shard, shards), values.detach().reshape(len(self.positions), -1)
        collected = self._found.setdefault(key, _Collected())
        digests = ops.row_digests(rows.float().contiguous()).cpu()
        collected.positions.append(self.positions)
        collected.digests.append(digests)
        index = self._row_to_keep(key, digests)
        if index is not None and collected.row is None:
            collected.row, collected.row_position = rows[index].cpu().clone(), int(self.positions[index])

    def _row_to_keep(self, key: OpKey, digests: torch.Tensor) -> int | None:
        """Return the index of the row of the running forward pass that is kept of an op; None if none is."""
        if key in self._rows:
            wanted = self.positions == self._rows[key]
        elif key in self._expected:
            expected = self._expected[key]
            known = self.positions < len(expected)
            wanted = known & (digests != expected[self.positions.clamp(max=len(expected) - 1)])
        else:
            return None
        return int(wanted.nonzero()[0]) if wanted.any() else None

    def add_split(self, layer: int, op: Op, values: torch.Tensor, shards: int) -> None:
        """Record the columns of an op's values [T, ...] in `shards` equal parts, as TP ranks hold them."""
        rows = values.detach().reshape(len(self.positions), -1)
        for shard, part in enumerate(rows.chunk(shards, dim=1)):
            self.add(layer, op, part, shard=shard, shards=shards)

    def records(self) -> list[OpRecord]:
        """Return what was recorded, in the order of the ops."""
        return [
            OpRecord(
                key=key,
                positions=torch.cat(each.positions),
                digests=torch.cat(each.digests),
                row=each.row,
                row_position=each.row_position,
            )
            for key, each in sorted(self._found.items(), key=lambda item: item[0])
        ]
