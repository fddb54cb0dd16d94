"""Memory of each other that the ranks of one host write to, and the tree all-reduce through it.

A group gets its buffer at its first call outside a CUDA graph, or none, where ranks lie on several hosts or have no
access to each other; then NCCL gathers the roots, as it does with kernels.all_reduce=gather. The bits are the same.
"""

from __future__ import annotations

import logging
import socket
import zlib

import torch
import torch.distributed as dist
import triton
from torch.distributed import _symmetric_memory as symmetric_memory

from rlsync.kernels.order import is_power_of_two
from rlsync.kernels.triton.all_reduce import FLAG_BYTES, in_words, one_shot, two_shot
from rlsync.kernels.triton.matmul import fold
from rlsync.kernels.triton.tiles import ONE_SHOT_BYTES, WORDS_BYTES, element_tile, multiprocessors, word_tile

SLOT_BYTES = 8 << 20
"""The roots of all ranks in a `one_shot`, at most."""
PART_BYTES = 32 << 20
"""Largest root of a `two_shot`; a larger one goes in pieces."""
WORD_SLOT_BYTES = 4 << 20
"""The words of all ranks in an `in_words`, at most: twice the bytes of their roots."""
_BLOCKS = 128
"""One a multiprocessor: they wait for each other, so all must be resident together."""
_SLOTS = _BLOCKS * FLAG_BYTES.value * max(ONE_SHOT_BYTES)
_PARTS = _SLOTS + 2 * SLOT_BYTES
_RESULTS = _PARTS + PART_BYTES
_WORDS = _RESULTS + PART_BYTES
_BUFFER_BYTES = _WORDS + 2 * WORD_SLOT_BYTES
_log = logging.getLogger(__name__)


class TreeAllReduce:
    """The tree across the ranks of a group through peer memory; a collective: all ranks call the same, in one stream.

    Raises:
        RuntimeError: the ranks' memory cannot be shared.
    """

    def __init__(self, group: dist.ProcessGroup, device: torch.device) -> None:
        # Not from a pool: the peers' addresses are those of whole allocations.
        self.memory = symmetric_memory._SymmetricMemory.empty_strided_p2p((_BUFFER_BYTES,), (1,), torch.uint8, device)
        self.handle = symmetric_memory.rendezvous(self.memory, group.group_name)
        self.rank, self.ranks = group.rank(), group.size()
        if self.handle.buffer_ptrs[self.rank] != self.memory.data_ptr():
            raise RuntimeError("a symmetric allocation does not begin where its tensor does")
        self.peers = torch.tensor(self.handle.buffer_ptrs, dtype=torch.int64, device=device)
        self.memory[:_SLOTS].zero_()
        self.memory[_WORDS:].zero_()  # words of no exchange
        self.blocks = _blocks(device)

    def __call__(self, root: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
        """root [M, N] fp32 -> round(tree + bias) [M, N]."""
        out = torch.empty(root.shape, dtype=dtype, device=root.device)
        if root.nbytes <= ONE_SHOT_BYTES[self.ranks]:
            form = self.in_words if root.nbytes <= WORDS_BYTES[self.ranks] else self.one_shot
            form(root, bias, out)
            return out
        rows = PART_BYTES // (4 * root.shape[1])
        for begin in range(0, root.shape[0], rows):
            self.two_shot(root[begin : begin + rows], bias, out[begin : begin + rows])
        return out

    def in_words(self, root: torch.Tensor, bias: torch.Tensor | None, out: torch.Tensor) -> None:
        """Root of at most WORD_SLOT_BYTES / (2 ranks)."""
        tile = word_tile(root.numel(), self.blocks)
        self._launch(in_words, (_WORDS, WORD_SLOT_BYTES), root, bias, out, tile, min(16, tile // 128))

    def one_shot(self, root: torch.Tensor, bias: torch.Tensor | None, out: torch.Tensor) -> None:
        """Root of at most SLOT_BYTES / ranks."""
        tile = element_tile(root.numel(), self.blocks)
        self._launch(one_shot, (_SLOTS, SLOT_BYTES), root, bias, out, tile, 16)

    def two_shot(self, root: torch.Tensor, bias: torch.Tensor | None, out: torch.Tensor) -> None:
        """Root of at most PART_BYTES."""
        tile = element_tile(root.numel() // self.ranks, self.blocks)
        self._launch(two_shot, (_PARTS, _RESULTS, PART_BYTES), root, bias, out, tile, 16)

    def _launch(
        self,
        kernel: triton.JITFunction,
        places: tuple[int, ...],
        root: torch.Tensor,
        bias: torch.Tensor | None,
        out: torch.Tensor,
        tile: int,
        warps: int,
    ) -> None:
        """`places`: of what the kernel uses in a rank's buffer."""
        kernel[(self.blocks,)](
            root, self.peers, out if bias is None else bias, out, root.numel(), root.shape[1], *places,
            RANK=self.rank, RANKS=self.ranks, TILE=tile, HAS_BIAS=bias is not None,
            num_warps=warps, num_stages=1, enable_fp_fusion=False,
        )  # fmt: skip


def gather_and_finish(
    root: torch.Tensor, group: dist.ProcessGroup, bias: torch.Tensor | None, dtype: torch.dtype
) -> torch.Tensor:
    """The same through NCCL: every rank gathers all roots."""
    parts = torch.empty(group.size(), *root.shape, dtype=torch.float32, device=root.device)
    dist.all_gather_into_tensor(parts, root, group=group)
    out = torch.empty(root.shape, dtype=dtype, device=root.device)
    fold(parts, bias, out)
    return out


_reducers: dict[tuple[dist.ProcessGroup, torch.device], TreeAllReduce | None] = {}


def finish_across(
    root: torch.Tensor, group: dist.ProcessGroup, bias: torch.Tensor | None, dtype: torch.dtype, share_memory: bool
) -> torch.Tensor:
    """As kernels.collectives.finish_across."""
    if root.dtype != torch.float32:
        raise TypeError(f"finish_across: root is {root.dtype}, the nodes of the tree are float32")
    if not is_power_of_two(group.size()):
        raise ValueError(f"finish_across: {group.size()} ranks, want a power of two")
    key = (group, root.device)
    if share_memory and key not in _reducers and not torch.cuda.is_current_stream_capturing():
        _reducers[key] = open_reducer(group, root.device)
    reducer = _reducers.get(key) if share_memory else None
    rows = root.reshape(-1, root.shape[-1]).contiguous()
    out = gather_and_finish(rows, group, bias, dtype) if reducer is None else reducer(rows, bias, dtype)
    return out.view(root.shape)


def _blocks(device: torch.device) -> int:
    return min(_BLOCKS, multiprocessors(device.index))


def open_reducer(group: dist.ProcessGroup, device: torch.device) -> TreeAllReduce | None:
    """None on all ranks, unless it works on all."""
    wanted = group.size() in ONE_SHOT_BYTES
    host = zlib.crc32(f"{socket.gethostname()} {_blocks(device)}".encode())
    if not _all_say(host if wanted else -1, group, device) or not wanted:
        return None
    reducer = None
    try:
        reducer = TreeAllReduce(group, device)
    except RuntimeError as error:
        _log.warning("no memory shared between GPUs, the tree all-reduce takes NCCL: %s", error)
    # Also the barrier after which every rank's flags are zero.
    return reducer if _all_say(int(reducer is not None), group, device) else None


def _all_say(value: int, group: dist.ProcessGroup, device: torch.device) -> bool:
    values = torch.empty(group.size(), dtype=torch.int64, device=device)
    dist.all_gather_into_tensor(values, torch.tensor([value], dtype=torch.int64, device=device), group=group)
    return bool((values == value).all())
