"""The order of every floating-point reduction. No other file knows the tree or these constants.

A change of any value here changes the bits of a model, and so the fingerprint.

The tree (TBIK, arXiv 2511.17826, with fp32 nodes): the K of a row-parallel product splits into
`leaves` equal contiguous ranges; a leaf sums its range in increasing k into an fp32 accumulator; the
leaves meet in a balanced binary tree of fp32 adds. A tensor-parallel rank owns a whole subtree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlsync.errors import ConfigError

if TYPE_CHECKING:  # the command line checks leaves without paying for torch
    import torch

ORDER_VERSION = 1

LANES = 16
"""Partial sums of a row reduction: lane i sums the elements whose index is i mod LANES, in order;
the lanes then meet in the balanced tree."""

DEFAULT_TREE_LEAVES = 8
MAX_TREE_LEAVES = 16
"""What every kernel has room for."""


def is_power_of_two(n: int) -> bool:
    return n > 0 and n & (n - 1) == 0


def tree_sum(parts: torch.Tensor) -> torch.Tensor:
    """Balanced pairwise sum over dim 0.

    Args:
        parts: [G, ...] fp32, G a power of two; part i is leaf (or subtree) i from the left.
    Returns:
        [...] fp32, the root.
    """
    if str(parts.dtype) != "torch.float32":
        raise TypeError(f"tree_sum: parts are {parts.dtype}, the nodes of the tree are float32")
    if not is_power_of_two(parts.shape[0]):
        raise ValueError(f"tree_sum: {parts.shape[0]} parts, want a power of two")
    while parts.shape[0] > 1:
        parts = parts[0::2] + parts[1::2]
    return parts[0]


def finish(root: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
    """round(root + bias): root [..., N] fp32, the bias [N] added in fp32, one rounding."""
    return (root if bias is None else root + bias.float()).to(dtype)


def local_leaves(tree_leaves: int, tp_size: int) -> int:
    """Leaves that one of `tp_size` ranks owns.

    Raises:
        ConfigError: the leaves are not a power of two up to MAX_TREE_LEAVES, or TP does not divide them.
    """
    if not is_power_of_two(tree_leaves) or tree_leaves > MAX_TREE_LEAVES:
        raise ConfigError(f"kernels.tree_leaves={tree_leaves}: must be a power of two up to {MAX_TREE_LEAVES}")
    if tree_leaves % tp_size:
        raise ConfigError(
            f"rollout.tp={tp_size} does not divide kernels.tree_leaves={tree_leaves}: a rank must own a whole "
            f"subtree. Use a power of two up to {tree_leaves}, more leaves, or kernels.row_parallel=gather, "
            "which serves any TP that the model's heads allow."
        )
    return tree_leaves // tp_size


def check_leaves_divide(name: str, k: int, tree_leaves: int) -> None:
    """Raises ConfigError unless K splits into equal leaves."""
    if k % tree_leaves:
        raise ConfigError(
            f"{name}: its input size {k} does not split into kernels.tree_leaves={tree_leaves} equal leaves. "
            f"Use fewer leaves (a power of two that divides {k}) or kernels.row_parallel=gather."
        )


def resolve_leaves(tree_leaves: int | str, tp_size: int) -> int:
    """`auto` takes the rollout's TP size: cheaper, but the bits then belong to that TP."""
    return tp_size if tree_leaves == "auto" else int(tree_leaves)
