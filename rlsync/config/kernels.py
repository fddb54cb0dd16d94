"""Which kernels compute the forward pass, and the tree they follow."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from rlsync.errors import ConfigError
from rlsync.kernels import order


class KernelMode(StrEnum):
    invariant = "invariant"
    """rlsync's ops on both sides: the same bits."""
    native = "native"
    """Stock kernels on both sides: the control that shows the mismatch others train with."""


class RowParallel(StrEnum):
    tree = "tree"
    """K in leaves; ranks own subtrees, and the all-reduce follows the tree."""
    gather = "gather"
    """Ranks own output columns and gather the input: any K, any TP that the heads allow, 1.5x the traffic."""


class AllReduce(StrEnum):
    auto = "auto"
    """Through memory that the GPUs of a host share, where they have access to each other; NCCL elsewhere."""
    gather = "gather"
    """NCCL gathers the roots: for hosts whose GPUs claim an access to each other that does not work. The same bits."""


@dataclass(kw_only=True, slots=True)
class KernelsConfig:
    mode: KernelMode = KernelMode.invariant
    tree_leaves: str = "8"
    """A power of two, the largest TP that shares these bits; `auto` takes rollout.tp."""
    row_parallel: RowParallel = RowParallel.tree
    all_reduce: AllReduce = AllReduce.auto
    """How TP workers on GPUs exchange the roots of their subtrees."""

    def __post_init__(self) -> None:
        if self.tree_leaves != "auto" and not self.tree_leaves.isdecimal():
            raise ConfigError(f"kernels.tree_leaves={self.tree_leaves}: want 1, 2, 4, 8, 16 or auto")

    def leaves(self, tp: int) -> int:
        """The number of leaves of the reduction tree; 1 in the gather form, whose products are not split along K.

        Args:
            tp: the engines' tensor-parallel size.
        """
        return 1 if self.row_parallel is RowParallel.gather else order.resolve_leaves(self.tree_leaves, tp)
