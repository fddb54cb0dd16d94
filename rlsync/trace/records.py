"""What the ops of a forward pass computed, as digests for each token, and the recorder that collects them.

Activations are not kept. A recorder keeps a 64-bit digest of each op's row of each token, and, if it is asked to watch
a position, the rows of that one token.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

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


@dataclass(slots=True, kw_only=True)
class OpRecord:
    """The results of one op on one side, for the tokens of one sequence."""

    layer: int
    """Number of the layer; see OUTSIDE_LAYERS."""
    op: Op
    shard: int = 0
    """Which part of the op's columns the rows hold: TP ranks hold some columns of some ops."""
    shards: int = 1
    """Number of parts of the op's columns."""
    positions: torch.Tensor
    """[N] int64: positions of the tokens in their sequence."""
    digests: torch.Tensor
    """[N] int64: digest of the bits of each token's row."""
    row: torch.Tensor | None = None
    """[K]: the row of the watched position, in the op's dtype; None if there is none."""

    @property
    def name(self) -> str:
        """The op's name, such as `layers.3.o_proj`."""
        return op_name(self.layer, self.op)


def op_name(layer: int, op: Op) -> str:
    """Return the name of an op, such as `layers.3.o_proj` or `norm`."""
    return op.name if op in OUTSIDE_LAYERS else f"layers.{layer}.{op.name}"


@dataclass(slots=True)
class _Collected:
    positions: list[torch.Tensor] = field(default_factory=list)
    digests: list[torch.Tensor] = field(default_factory=list)
    row: torch.Tensor | None = None


class Recorder:
    """Collects the records of one side.

    Args:
        watched: Position whose rows are kept; None for digests only.
    """

    def __init__(self, watched: int | None = None) -> None:
        self._watched = watched
        self._found: dict[tuple[int, Op, int, int], _Collected] = {}
        self.positions = torch.zeros(0, dtype=torch.int64)
        """[T] int64: positions of the rows of the forward pass that is running."""

    def add(self, layer: int, op: Op, values: torch.Tensor, *, shard: int = 0, shards: int = 1) -> None:
        """Record an op's values [T, ...] of the rows of the running forward pass; `shard` of `shards` columns."""
        rows = values.detach().reshape(len(self.positions), -1)
        collected = self._found.setdefault((layer, op, shard, shards), _Collected())
        collected.positions.append(self.positions)
        collected.digests.append(ops.row_digests(rows.float().contiguous()).cpu())
        if self._watched is not None and (at := (self.positions == self._watched).nonzero()).numel():
            collected.row = rows[int(at[0])].cpu().clone()  # stock kernels change some values in place

    def add_split(self, layer: int, op: Op, values: torch.Tensor, shards: int) -> None:
        """Record the columns of an op's values [T, ...] in `shards` equal parts, as TP ranks hold them."""
        rows = values.detach().reshape(len(self.positions), -1)
        for shard, part in enumerate(rows.chunk(shards, dim=1)):
            self.add(layer, op, part, shard=shard, shards=shards)

    def records(self) -> list[OpRecord]:
        """Return what was recorded, in the order of the ops."""
        return [
            OpRecord(
                layer=layer,
                op=op,
                shard=shard,
                shards=shards,
                positions=torch.cat(each.positions),
                digests=torch.cat(each.digests),
                row=each.row,
            )
            for (layer, op, shard, shards), each in sorted(self._found.items(), key=lambda item: item[0])
        ]
