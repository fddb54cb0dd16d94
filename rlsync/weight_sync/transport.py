"""Weight channels: the messages from a trainer rank to the rollout workers that it feeds.

If all members share one GPU, a message stays on it (staged): the sender fills one of two buffers that the receivers
have opened through CUDA IPC, so it can gather the next message while they load the last one. If each member has a GPU
of its own, NCCL broadcasts the messages. Otherwise gloo broadcasts them through the hosts' memory.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import torch
import torch.distributed as dist

from rlsync.weight_sync.ipc import handle_of, open_handle
from rlsync.weight_sync.store import Address, find, join_store, leave, serve_store

_TIMEOUT = timedelta(minutes=10)
_ALIGNED = 256
"""Alignment of the buffers, in bytes."""
_STAGING_BYTES = 256 << 20
"""Largest size of a buffer; a longer message is sent in pieces."""


@dataclass(slots=True, kw_only=True)
class Seat:
    """A receiver's place in a channel."""

    address: Address
    """Address of the sender's store."""
    rank: int
    """The receiver's rank in the channel, from 1."""
    world: int
    """Number of members of the channel: the sender and its receivers."""


def seats(sources: Sequence[int], addresses: Mapping[int, Address]) -> list[Seat]:
    """The seat of each receiver.

    Args:
        sources: the trainer rank that feeds each receiver.
        addresses: the address of each such rank's channel.
    """
    worlds = {source: 1 + sources.count(source) for source in sources}
    return [
        Seat(address=addresses[source], rank=1 + sources[:i].count(source), world=worlds[source])
        for i, source in enumerate(sources)
    ]


class Channel:
    """One member's end of a channel: rank 0 sends, and all other ranks receive.

    Args:
        rank: the member's rank in the channel.
        world: number of members: the sender and its receivers.
        device: the device of the messages on this member.
        address: address of the sender's store; None on the sender, which serves the store on a free port.
        host: on the sender, the name or address under which the receivers reach its host.
    """

    def __init__(
        self,
        *,
        rank: int,
        world: int,
        device: torch.device,
        address: Address | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.rank, self.world, self._device = rank, world, device
        self._staging: torch.Tensor | None = None
        """[2, bytes] uint8: the two buffers on a shared GPU. A receiver at barrier t has read piece t - 1, so piece
        t + 1 may use the same buffer."""
        self._turn = 0
        self._group: dist.ProcessGroup | None = None
        self._nccl: dist.ProcessGroup | None = None
        if address is None:
            self._store, self.address = serve_store(host, _TIMEOUT)
        else:
            self._store, self.address = join_store(address, _TIMEOUT), address

    def connect(self) -> None:
        """Form the process group. Blocks until every member has called it."""
        store = dist.PrefixStore("weights", self._store)
        self._group = cast(dist.ProcessGroup, dist.ProcessGroupGloo(store, self.rank, self.world, timeout=_TIMEOUT))

    def leave(self, name: str, value: Any) -> None:
        """Write a JSON-serialisable value, which other members read with `find`."""
        leave(self._store, self.address.secret, name, value)

    def find(self, name: str) -> Any:
        """Wait for the value that a member writes under a name, and return it.

        Raises:
            RlsyncError: the value was not written by a member.
        """
        return find(self._store, self.address.secret, name)

    def barrier(self) -> None:
        """Wait for every member."""
        self._connected().barrier().wait()

    def prepare(self, largest: int) -> None:
        """Choose the transport, for messages of at most `largest` bytes. Blocks until every member has called it."""
        if self._device.type != "cuda":
            return
        self.leave(f"place{self.rank}", _place(self._device))
        places = {self.find(f"place{rank}") for rank in range(self.world)}
        if len(places) == 1:
            self._staging = self._share(largest)
        elif len(places) == self.world:
            store = dist.PrefixStore("nccl", self._store)
            nccl = dist.ProcessGroupNCCL(store, self.rank, self.world, dist.ProcessGroupNCCL.Options())
            self._nccl = cast(dist.ProcessGroup, nccl)

    def buffer(self, numel: int, dtype: torch.dtype) -> torch.Tensor:
        """A tensor [numel] for the sender to fill and pass to `send`."""
        if self._staging is not None and numel * dtype.itemsize <= self._staging.shape[1]:
            return self._slot(numel * dtype.itemsize).view(dtype)
        return torch.empty(numel, dtype=dtype, device=self._device)

    def send(self, tensor: torch.Tensor) -> None:
        """Send a tensor that `buffer` has returned.

        Afterwards only later work on this device's stream may change the tensor, or no work at all if it is staged.
        """
        if not tensor.numel():
            return
        if self._staging is not None:
            for piece in tensor.view(torch.uint8).split(self._staging.shape[1]):
                slot = self._slot(piece.numel())
                if slot.data_ptr() != piece.data_ptr():
                    slot.copy_(piece)
                self._meet()
                self._turn += 1
        elif self._nccl is not None:
            self._nccl.broadcast([tensor]).wait()
        else:
            self._broadcast(tensor.cpu())

    def receive(self, numel: int, dtype: torch.dtype) -> torch.Tensor:
        """Receive a tensor [numel] of `dtype` on this member's device. It must be read before the next call."""
        if self._staging is not None and numel:
            return self._receive_staged(numel, dtype, self._staging.shape[1])
        if self._nccl is not None and numel:
            tensor = torch.empty(numel, dtype=dtype, device=self._device)
            self._nccl.broadcast([tensor]).wait()
            return tensor
        tensor = torch.empty(numel, dtype=dtype)
        if numel:
            self._broadcast(tensor)
        return tensor.to(self._device)

    def _receive_staged(self, numel: int, dtype: torch.dtype, room: int) -> torch.Tensor:
        """Receive a staged message: a view of the buffer if it is one piece, otherwise a copy of all pieces."""
        size = numel * dtype.itemsize
        if size <= room:
            self._meet()
            whole = self._slot(size)
            self._turn += 1
        else:
            whole = torch.empty(size, dtype=torch.uint8, device=self._device)
            for piece in whole.split(room):
                self._meet()
                piece.copy_(self._slot(piece.numel()))
                self._turn += 1
        return whole.view(dtype)

    def _slot(self, size: int) -> torch.Tensor:
        assert self._staging is not None
        return self._staging[self._turn % 2, :size]

    def _meet(self) -> None:
        """Wait until the sender has filled the slot and the receivers have read the one before."""
        torch.cuda.synchronize()
        self.barrier()

    def _share(self, largest: int) -> torch.Tensor:
        if self.rank:
            return open_handle(self.find("staging"), self._device)
        room = min(-(-largest // _ALIGNED) * _ALIGNED, _STAGING_BYTES)
        staging = torch.empty(2, room, dtype=torch.uint8, device=self._device)
        self.leave("staging", handle_of(staging))
        return staging

    def _broadcast(self, tensor: torch.Tensor) -> None:
        self._connected().broadcast([tensor.view(torch.uint8)]).wait()

    def _connected(self) -> dist.ProcessGroup:
        if self._group is None:
            raise RuntimeError("weight channel: it is used before connect()")
        return self._group


def _place(device: torch.device) -> str:
    """A text that is equal for processes of one host and GPU, which can open each other's CUDA IPC handles."""
    gpu = torch.cuda.get_device_properties(device).uuid if device.type == "cuda" else ""
    return f"{socket.gethostname()} {gpu}"
