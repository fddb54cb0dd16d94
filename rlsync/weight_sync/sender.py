"""Trainer side of the weight sync."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
import torch.distributed as dist
import torch.nn.functional as F

from rlsync.types import TensorDigest
from rlsync.weight_sync.digest import digest_part
from rlsync.weight_sync.plan import SyncPlan
from rlsync.weight_sync.transport import Address, Channel


class Weights(Protocol):
    """The rows of each tensor that a rank holds, as trainer/sharded.py has them."""

    device: torch.device

    def local_images(self) -> Iterator[tuple[str, torch.Tensor, int, int]]: ...


class WeightSender:
    """One rank. All ranks gather a bucket of tensors after the other; those with a channel pass it on to the rollout
    workers that they feed, so that no rank ever holds the whole model.
    """

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._channel: Channel | None = None
        self._plan: SyncPlan | None = None

    def open_channel(self, host: str, receivers: int) -> Address:
        """Open this rank's channel; the receivers connect to the returned address, which they reach as `host`."""
        self._channel = Channel(rank=0, world=1 + receivers, host=host, device=self._weights.device)
        return self._channel.address

    def connect(self, plan: SyncPlan) -> None:
        """Wait until every receiver has joined this rank's channel, if it has one."""
        self._plan = plan
        if self._channel is not None:
            self._channel.connect(plan.largest_bytes)

    def send(self) -> list[TensorDigest]:
        """Send all tensors (collective); returns digests of this rank's rows."""
        assert self._plan is not None
        parts = list(self._weights.local_images())
        images = {name: local for name, local, _, _ in parts}
        channel = self._channel
        for bucket in self._plan.buckets:
            own = torch.cat([images[spec.name].reshape(-1) for spec in bucket])
            own = F.pad(own, (0, self._plan.message_elements(bucket) - own.numel()))
            size = self._plan.ranks * own.numel()
            everyone = own.new_empty(size) if channel is None else channel.buffer(size, own.dtype)
            dist.all_gather_into_tensor(everyone, own)
            if channel is not None:
                channel.send(everyone)
        return [
            digest_part(name, local, row=row, column=0, columns=columns)
            for name, local, row, columns in parts
            if local.numel()
        ]
