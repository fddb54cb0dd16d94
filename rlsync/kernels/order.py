"""The order of every floating-point reduction. No other file knows the tree or these constants.

A change of any value here changes the bits of a model, and with them the fingerprint.

The tree (TBIK, arXiv 2511.17826, with fp32 nodes): the inner dimension K of a row-parallel product is cut into `leaves`
equal contiguous ranges. A leaf sums its range in increasing k into an fp32 accumulator, and the leaves meet in a
balanced binary tree of fp32 additions. A tensor-parallel rank owns a whole subtree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlsync.errors import ConfigError

if TYPE_CHECKING:  # the command line checks the leaves without importing torch
    import torch

ORDER_VERSION = 1
"""Raised when an order changes; a part of the fingerprint."""

LANES = 16
"""Number of partial sums of a row reduction on the CPU. Lane i sums the elements whose index is i modulo LANES, in
order, and the lanes then meet in a balanced tree."""

DEFAULT_TREE_LEAVES = 8
MAX_TREE_LEAVES = 16
"""The largest number of leaves that every kernel supports."""


def is_power_of_two(n: int) -> bool:
    """Whether n is 1, 2, 4, 8 and so on."""
    return n > 0 and n & (n - 1) == 0


def tree_sum(parts: torch.Tensor) -> torch.Tensor:
    """Add parts in a balanced binary tree over dim 0.

    Args:
        parts: [G, ...] fp32, where G is a power of two. Part i is leaf i, or the root of subtree i, from the left.

    Returns:
        [...] fp32, the root.

    Raises:
        TypeError: the parts are not fp32.
        ValueError: the number of parts is not a power of two.
    """
    if str(parts.dtype) != "torch.float32":
        raise TypeError(f"tree_sum: the parts are {parts.dtype}, but the nodes of the tree must be float32")
    if not is_power_of_two(parts.shape[0]):
        raise ValueError(f"tree_sum: there are {parts.shape[0]} parts, but their number must be a power of two")
    while parts.shape[0] > 1:
        parts = parts[0::2] + parts[1::2]
    return parts[0]


def finish(root: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
    """Add the bias [N], if there is one, to the root [..., N] in fp32, and round once to `dtype`."""
    return (root if bias is None else root + bias.float()).to(dtype)


def local_leaves(tree_leaves: int, tp_size: int) -> int:
    """The number of leaves that each of `tp_size` ranks owns.

    Raises:
        ConfigError: the number of leaves is not a power of two up to MAX_TREE_LEAVES, or `tp_size` does not divide it.
    """
    if not is_power_of_two(tree_leaves) or tree_leaves > MAX_TREE_LEAVES:
        raise ConfigError(
            f"kernels.tree_leaves={tree_leaves}: the number of leaves must be a power of two of at most "
            f"{MAX_TREE_LEAVES}."
        )
    if tree_leaves % tp_size:
        raise ConfigError(
            f"rollout.tp={tp_size} does not divide kernels.tree_leaves={tree_leaves}, but each rank must own a whole "
            f"subtree. Set rollout.tp to a power of two of at most {tree_leaves}, use more leaves, or use "
            "kernels.row_parallel=gather, which allows any tensor-parallel size that the model's heads allow."
        )
    return tree_leaves // tp_size


def check_leaves_divide(name: str, k: int, tree_leaves: int) -> None:
    """Check that the leaves divide the input size of a layer.

    Args:
        name: name of the layer, for the message.
        k: its input size.
        tree_leaves: number of leaves.

    Raises:
        ConfigError: they do not.
    """
    if k % tree_leaves:
        raise ConfigError(
            f"{name}: its input size {k} cannot be cut into kernels.tree_leaves={tree_leaves} equal leaves. "
            f"Use fewer leaves (a power of two that divides {k}) or kernels.row_parallel=gather."
        )


def resolve_leaves(tree_leaves: int | str, tp_size: int) -> int:
    """The number of leaves of a run. `auto` stands for the tensor-parallel size, on which the bits then depend."""
    return tp_size if tree_leaves == "auto" else int(tree_leaves)
