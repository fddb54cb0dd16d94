"""A private process group from a trainer rank to the rollout workers that it feeds; nothing touches the disk.

Where all members share one GPU, a message stays there: the group passes a CUDA IPC handle, and receivers copy. Where
each has a GPU of its own, NCCL carries it. Elsewhere the bytes go through the hosts.
"""

from __future__ import annotations

import pickle
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import cast

import torch
import torch.distributed as dist
from torch.multiprocessing.reductions import reduce_tensor

_TIMEOUT = timedelta(minutes=10)
_DEVICE_ARGUMENT = 6
"""Of torch.multiprocessing.reductions.rebuild_cuda_tensor."""


@dataclass(slots=True, kw_only=True)
class Address:
    """Of a channel's store."""

    host: str
    port: int


@dataclass(slots=True, kw_only=True)
class Seat:
    """A receiver's place in a channel."""

    address: Address
    rank: int
    world: int


def seats(sources: Sequence[int], addresses: Mapping[int, Address]) -> list[Seat]:
    """The seat of each receiver.

    Args:
        sources: the sender that feeds each receiver.
        addresses: of the senders' channels.
    """
    worlds = {source: 1 + sources.count(source) for source in sources}
    return [
        Seat(address=addresses[source], rank=1 + sources[:i].count(source), world=worlds[source])
        for i, source in enumerate(sources)
    ]


class Channel:
    """Broadcasts from rank 0 (the sender) to ranks 1.. (the receivers).

    Args:
        address: of the sender's store; None on the sender, which opens one on a free port.
        host: this sender's host name or address, as the receivers reach it.
        world: 1 + receivers.
        device: where messages come from, or go to.
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
        self._rank, self._world, self._device = rank, world, device
        self._shares_gpu = False
        self._group: dist.ProcessGroup | None = None
        self._nccl: dist.ProcessGroup | None = None
        if address is None:
            self._store = dist.TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=_TIMEOUT)
            self.address = Address(host=host, port=self._store.port)
        else:
            self._store = dist.TCPStore(address.host, address.port, is_master=False, timeout=_TIMEOUT)
            self.address = address

    def connect(self) -> None:
        """Form the group. Blocks until every member has called it."""
        store = dist.PrefixStore("weights", self._store)
        store.set(f"place{self._rank}", _place(self._device))
        places = {store.get(f"place{rank}") for rank in range(self._world)}
        if self._device.type == "cuda":
            self._shares_gpu = len(places) == 1
            if len(places) == self._world:
                options = dist.ProcessGroupNCCL.Options()
                nccl = dist.ProcessGroupNCCL(dist.PrefixStore("nccl", store), self._rank, self._world, options)
                self._nccl = cast(dist.ProcessGroup, nccl)
        self._group = cast(dist.ProcessGroup, dist.ProcessGroupGloo(store, self._rank, self._world, timeout=_TIMEOUT))

    def send(self, tensor: torch.Tensor) -> None:
        """Returns when every receiver has it; over NCCL when this device's later work comes after the broadcast."""
        if not tensor.numel():
            return
        if self._shares_gpu:
            self._send_handle(tensor)
        elif self._nccl is not None:
            self._nccl.broadcast([tensor]).wait()
        else:
            self._broadcast(tensor.cpu())

    def receive(self, numel: int, dtype: torch.dtype) -> torch.Tensor:
        """[numel] of `dtype`, on this member's device."""
        if self._shares_gpu and numel:
            return self._copy_from_handle()
        if self._nccl is not None and numel:
            tensor = torch.empty(numel, dtype=dtype, device=self._device)
            self._nccl.broadcast([tensor]).wait()
            return tensor
        tensor = torch.empty(numel, dtype=dtype)
        if numel:
            self._broadcast(tensor)
        return tensor.to(self._device)

    def _send_handle(self, tensor: torch.Tensor) -> None:
        handle = torch.frombuffer(bytearray(pickle.dumps(reduce_tensor(tensor.contiguous()))), dtype=torch.uint8)
        torch.cuda.synchronize()
        self._broadcast(torch.tensor([handle.numel()]))
        self._broadcast(handle)
        self._barrier()  # the tensor lives until all have copied

    def _copy_from_handle(self) -> torch.Tensor:
        size = torch.empty(1, dtype=torch.int64)
        self._broadcast(size)
        handle = torch.empty(int(size), dtype=torch.uint8)
        self._broadcast(handle)
        rebuild, arguments = pickle.loads(handle.numpy().tobytes())
        # The GPU has another number here than at the sender.
        arguments = (*arguments[:_DEVICE_ARGUMENT], self._device.index, *arguments[_DEVICE_ARGUMENT + 1 :])
        copy = rebuild(*arguments).clone()
        torch.cuda.synchronize()
        self._barrier()
        return copy

    def _broadcast(self, tensor: torch.Tensor) -> None:
        self._connected().broadcast([tensor.view(torch.uint8)]).wait()

    def _barrier(self) -> None:
        self._connected().barrier().wait()

    def _connected(self) -> dist.ProcessGroup:
        if self._group is None:
            raise RuntimeError("weight channel used before connect()")
        return self._group


def _place(device: torch.device) -> str:
    """Equal for processes that can open each other's CUDA IPC handles."""
    gpu = torch.cuda.get_device_properties(device).uuid if device.type == "cuda" else ""
    return f"{socket.gethostname()} {gpu}"
