"""The tree all-reduce through memory that the GPUs of one host share.

A group of ranks allocates its buffer at its first call outside a CUDA graph. If the ranks are on several hosts, or
their GPUs have no access to each other, NCCL gathers the roots, as with kernels.all_reduce=gather. The bits are the
same.
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
from rlsync.kernels.triton.all_reduce import FLAG_BYTES, low_latency, one_shot, two_shot
from rlsync.kernels.triton.matmul import fold
from rlsync.kernels.triton.tiles import (
    LOW_LATENCY_BYTES,
    ONE_SHOT_BYTES,
    element_tile,
    low_latency_tile,
    multiprocessors,
)

SLOT_BYTES = 8 << 20
"""Largest size of the roots of all ranks together in a `one_shot`."""
PART_BYTES = 32 << 20
"""Largest size of a root in a `two_shot`; a larger root is handled in pieces."""
LOW_LATENCY_SLOT_BYTES = 4 << 20
"""Largest size of the words of all ranks together in an `low_latency`; words take twice the bytes of their roots."""
_BLOCKS = 128
"""Largest number of blocks, at most one for each multiprocessor. Blocks wait for blocks of other ranks, so all of them
must be resident at the same time."""
_SLOTS = _BLOCKS * FLAG_BYTES.value * max(ONE_SHOT_BYTES)
_PARTS = _SLOTS + 2 * SLOT_BYTES
_RESULTS = _PARTS + PART_BYTES
_LOW_LATENCY = _RESULTS + PART_BYTES
_BUFFER_BYTES = _LOW_LATENCY + 2 * LOW_LATENCY_SLOT_BYTES
_log = logging.getLogger(__name__)


class TreeAllReduce:
    """The tree all-reduce of a group through peer memory. All ranks must make the same calls, in one stream.

    Args:
        group: the ranks.
        device: this rank's GPU.

    Raises:
        RuntimeError: the ranks' memory cannot be shared.
    """

    def __init__(self, group: dist.ProcessGroup, device: torch.device) -> None:
        # The memory does not come from a pool, because the peers' addresses are those of whole allocations.
        self.memory = symmetric_memory._SymmetricMemory.empty_strided_p2p((_BUFFER_BYTES,), (1,), torch.uint8, device)
        self.handle = symmetric_memory.rendezvous(self.memory, group.group_name)
        self.rank, self.ranks = group.rank(), group.size()
        if self.handle.buffer_ptrs[self.rank] != self.memory.data_ptr():
            raise RuntimeError("the symmetric memory does not begin at the address of its tensor")
        self.peers = torch.tensor(self.handle.buffer_ptrs, dtype=torch.int64, device=device)
        self.memory[:_SLOTS].zero_()
        self.memory[_LOW_LATENCY:].zero_()  # words that belong to no exchange
        self.blocks = _blocks(device)

    def __call__(self, root: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
        """Add the ranks' roots [M, N] fp32 in the order of the tree, then the bias [N], and round once to `dtype`."""
        out = torch.empty(root.shape, dtype=dtype, device=root.device)
        if root.nbytes <= ONE_SHOT_BYTES[self.ranks]:
            form = self.low_latency if root.nbytes <= LOW_LATENCY_BYTES[self.ranks] else self.one_shot
            form(root, bias, out)
            return out
        rows = PART_BYTES // (4 * root.shape[1])
        for begin in range(0, root.shape[0], rows):
            self.two_shot(root[begin : begin + rows], bias, out[begin : begin + rows])
        return out

    def low_latency(self, root: torch.Tensor, bias: torch.Tensor | None, out: torch.Tensor) -> None:
        """Send a root of at most LOW_LATENCY_SLOT_BYTES / (2 ranks) bytes in words, and write the result to `out`."""
        tile = low_latency_tile(root.numel(), self.blocks)
        self._launch(low_latency, (_LOW_LATENCY, LOW_LATENCY_SLOT_BYTES), root, bias, out, tile, min(16, tile // 128))

    def one_shot(self, root: torch.Tensor, bias: torch.Tensor | None, out: torch.Tensor) -> None:
        """Send a root of at most SLOT_BYTES / ranks bytes to all ranks, and write the result to `out`."""
        tile = element_tile(root.numel(), self.blocks)
        self._launch(one_shot, (_SLOTS, SLOT_BYTES), root, bias, out, tile, 16)

    def two_shot(self, root: torch.Tensor, bias: torch.Tensor | None, out: torch.Tensor) -> None:
        """Finish slices of a root of at most PART_BYTES bytes on all ranks, and write the result to `out`."""
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
        """Launch a kernel; `places` are the offsets and sizes of the parts of a rank's buffer that it uses."""
        kernel[(self.blocks,)](
            root, self.peers, out if bias is None else bias, out, root.numel(), root.shape[1], *places,
            RANK=self.rank, RANKS=self.ranks, TILE=tile, HAS_BIAS=bias is not None,
            num_warps=warps, num_stages=1, enable_fp_fusion=False,
        )  # fmt: skip


def gather_and_finish(
    root: torch.Tensor, group: dist.ProcessGroup, bias: torch.Tensor | None, dtype: torch.dtype
) -> torch.Tensor:
    """The tree all-reduce through NCCL: every rank gathers all roots [M, N] fp32 and adds them."""
    parts = torch.empty(group.size(), *root.shape, dtype=torch.float32, device=root.device)
    dist.all_gather_into_tensor(parts, root, group=group)
    out = torch.empty(root.shape, dtype=dtype, device=root.device)
    fold(parts, bias, out)
    return out


_reducers: dict[tuple[dist.ProcessGroup, torch.device], TreeAllReduce | None] = {}


def finish_across(
    root: torch.Tensor, group: dist.ProcessGroup, bias: torch.Tensor | None, dtype: torch.dtype, share_memory: bool
) -> torch.Tensor:
    """Add the ranks' roots in the order of the tree, as kernels.collectives.finish_across on GPUs (collective)."""
    if root.dtype != torch.float32:
        raise TypeError(f"finish_across: the root is {root.dtype}, but the nodes of the tree must be float32")
    if not is_power_of_two(group.size()):
        raise ValueError(f"finish_across: there are {group.size()} ranks, but their number must be a power of two")
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
    """Make the all-reduce of a group (collective); None on all ranks if it does not work on one of them."""
    wanted = group.size() in ONE_SHOT_BYTES
    host = zlib.crc32(f"{socket.gethostname()} {_blocks(device)}".encode())
    if not _all_say(host if wanted else -1, group, device) or not wanted:
        return None
    reducer = None
    try:
        reducer = TreeAllReduce(group, device)
    except RuntimeError as error:
        _log.warning("the tree all-reduce uses NCCL, because the GPUs cannot share memory: %s", error)
    # This exchange is also the barrier after which every rank's flags are 0.
    return reducer if _all_say(int(reducer is not None), group, device) else None


def _all_say(value: int, group: dist.ProcessGroup, device: torch.device) -> bool:
    """Whether all ranks pass the same value (collective)."""
    values = torch.empty(group.size(), dtype=torch.int64, device=device)
    dist.all_gather_into_tensor(values, torch.tensor([value], dtype=torch.int64, device=device), group=group)
    return bool((values == value).all())
