"""A private process group from one trainer rank to every rollout worker; nothing touches the disk."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import cast

import torch
import torch.distributed as dist

_TIMEOUT = timedelta(minutes=10)


@dataclass(slots=True, kw_only=True)
class Address:
    host: str
    port: int


class Channel:
    """Broadcasts from rank 0 (the sender) to ranks 1.. (the receivers).

    Args:
        address: of the sender's store; None on the sender, which opens one on a free port.
        host: this sender's host name or address, as the receivers reach it.
        world: 1 + receivers.
    """

    def __init__(self, *, rank: int, world: int, address: Address | None = None, host: str = "127.0.0.1") -> None:
        self._rank, self._world = rank, world
        self._group: dist.ProcessGroup | None = None
        if address is None:
            self._store = dist.TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=_TIMEOUT)
            self.address = Address(host=host, port=self._store.port)
        else:
            self._store = dist.TCPStore(address.host, address.port, is_master=False, timeout=_TIMEOUT)
            self.address = address

    def connect(self) -> None:
        """Form the group. Blocks until every member has called it."""
        store = dist.PrefixStore("weights", self._store)
        self._group = cast(dist.ProcessGroup, dist.ProcessGroupGloo(store, self._rank, self._world, timeout=_TIMEOUT))

    def send(self, tensor: torch.Tensor) -> None:
        self._broadcast(tensor)

    def receive(self, numel: int, dtype: torch.dtype) -> torch.Tensor:
        """[numel] of `dtype`."""
        tensor = torch.empty(numel, dtype=dtype)
        self._broadcast(tensor)
        return tensor

    def _broadcast(self, tensor: torch.Tensor) -> None:
        if self._group is None:
            raise RuntimeError("weight channel used before connect()")
        if tensor.numel():
            self._group.broadcast([tensor.view(torch.uint8)]).wait()


def own_host() -> str:
    """An address of this machine that its peers reach; loopback when the name does not resolve."""
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return "127.0.0.1"
