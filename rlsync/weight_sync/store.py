"""Key-value stores through which processes of a run find each other: reachable where needed, and signed.

Whoever reaches a store's port may write to it, so nothing from one is unpickled, and each value carries a signature
whose key the members of the run got through Ray.
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
    """Where a store is, and the key of what is written to it."""

    host: str
    port: int
    secret: str = field(default="", repr=False)
    """Key of the signatures, in hexadecimal digits."""


def serve_store(host: str, timeout: timedelta) -> tuple[dist.TCPStore, Address]:
    """A store in this process that listens on the interface of `host` only, with its address for the others."""
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
    """The store that another process serves."""
    return dist.TCPStore(address.host, address.port, is_master=False, timeout=timeout)


def leave(store: dist.Store, secret: str, name: str, value: Any) -> None:
    """Write what JSON can hold, signed, for other members to `find`."""
    text = json.dumps(value)
    store.set(name, f"{_signature(secret, name, text)} {text}")


def find(store: dist.Store, secret: str, name: str) -> Any:
    """Wait for the value that a member writes under that name, and return it.

    Raises:
        RlsyncError: no member has written it.
    """
    signature, _, text = store.get(name).decode().partition(" ")
    if not hmac.compare_digest(signature.encode(), _signature(secret, name, text).encode()):
        raise RlsyncError(
            f"weight channel: {name!r} was not written by a process of this run, so another program has reached its "
            "port. Keep other users and hosts away from the ports of the run's nodes, and start it again."
        )
    return json.loads(text)


def _signature(secret: str, name: str, text: str) -> str:
    return hmac.new(secret.encode(), f"{name}\n{text}".encode(), hashlib.sha256).hexdigest()
