"""Configuration of the kernels of the forward pass and of their reduction tree."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from rlsync.errors import ConfigError
from rlsync.kernels import order


class KernelMode(StrEnum):
    """Which kernels compute the forward pass of rollout and trainer."""

    invariant = "invariant"
    """rlsync's ops on both sides, which give the same bits."""
    native = "native"
    """Stock kernels on both sides: the control that shows the mismatch."""


class RowParallel(StrEnum):
    """How row-parallel products are computed."""

    tree = "tree"
    """K is cut into leaves, ranks own subtrees, and the all-reduce follows the tree."""
    gather = "gather"
    """Ranks own output columns and gather the input. This works with any K and with any TP that the heads allow, and
    has 1.5x the traffic."""


class AllReduce(StrEnum):
    """How TP workers on GPUs exchange the roots of their subtrees; the bits are the same."""

    auto = "auto"
    """Through shared memory where the GPUs of a host have peer access to each other, and through NCCL elsewhere."""
    gather = "gather"
    """NCCL gathers the roots: for hosts whose GPUs report a peer access that does not work."""


@dataclass(kw_only=True, slots=True)
class KernelsConfig:
    """Configuration of the kernels."""

    mode: KernelMode = KernelMode.invariant
    tree_leaves: str = "8"
    """Number of leaves of the reduction tree: a power of two, and the largest TP that gives these bits. `auto` takes
    rollout.tp."""
    row_parallel: RowParallel = RowParallel.tree
    all_reduce: AllReduce = AllReduce.auto
    """How TP workers on GPUs exchange the roots of their subtrees."""

    def __post_init__(self) -> None:
        if self.tree_leaves != "auto" and not self.tree_leaves.isdecimal():
            raise ConfigError(f"kernels.tree_leaves={self.tree_leaves}: must be 1, 2, 4, 8, 16 or auto")

    def leaves(self, tp: int) -> int:
        """Return the number of leaves of the reduction tree; 1 in the gather form, which does not split K.

        Args:
            tp: Tensor-parallel size of the engines.
        """
        return 1 if self.row_parallel is RowParallel.gather else order.resolve_leaves(self.tree_leaves, tp)
