"""A process group with one rank, so that FSDP2 runs in a process of its own as in training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist

from rlsync.config.cluster import Device


@contextmanager
def single_rank(scratch: str, device: Device) -> Iterator[None]:
    """Make the process group, with its store in the folder `scratch`."""
    backend = "gloo" if device is Device.cpu else "nccl"
    dist.init_process_group(backend, store=dist.FileStore(f"{scratch}/store", 1), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()
