"""Key-value stores through which the processes of a run find each other.

A store listens on one network interface only, but any process that reaches its port may write to it. Values are
therefore JSON, which is never unpickled, and carry a signature whose key was handed over through Ray.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import socket
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from rlsync.errors import RlsyncError


@dataclass(slots=True, kw_only=True)
class Address:
    """The network address of a store, and the key of its signatures."""

    host: str
    """Name or address under which other processes reach the store's host."""
    port: int
    """Port of the store."""
    secret: str = field(default="", repr=False)
    """Key of the signatures, in hexadecimal digits."""


def serve_store(host: str, timeout: timedelta) -> tuple[dist.TCPStore, Address]:
    """Serve a store in this process that listens only on the network interface of `host`.

    Returns:
        The store, and the address for other processes.
    """
    family, _, _, _, place = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.bind(place)
        listener.listen()
        address = Address(host=host, port=int(listener.getsockname()[1]), secret=secrets.token_hex(32))
        store = dist.TCPStore(
            host,
            address.port,
            is_master=True,
            wait_for_workers=False,
            timeout=timeout,
            master_listen_fd=listener.detach(),
        )
    return store, address


def join_store(address: Address, timeout: timedelta) -> dist.TCPStore:
    """Connect to the store that another process serves."""
    return dist.TCPStore(address.host, address.port, is_master=False, timeout=timeout)


def leave(store: dist.Store, secret: str, name: str, value: Any) -> None:
    """Write a JSON-serialisable value with a signature; other members read it with `find`."""
    text = json.dumps(value)
    store.set(name, f"{_signature(secret, name, text)} {text}")


def find(store: dist.Store, secret: str, name: str) -> Any:
    """Wait for the value that a member writes under a name, and return it.

    Raises:
        RlsyncError: the value does not have the signature of a member.
    """
    signature, _, text = store.get(name).decode().partition(" ")
    if not hmac.compare_digest(signature.encode(), _signature(secret, name, text).encode()):
        raise RlsyncError(
            f"weight channel: the value {name!r} was not written by a process of this run, so another program can "
            "reach the channel's port. Keep other users and hosts away from the ports of the run's nodes, and start "
            "the run again."
        )
    return json.loads(text)


def _signature(secret: str, name: str, text: str) -> str:
    return hmac.new(secret.encode(), f"{name}\n{text}".encode(), hashlib.sha256).hexdigest()
