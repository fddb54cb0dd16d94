"""The trainer's side of a weight sync."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Protocol

import torch
import torch.distributed as dist

from rlsync.kernels.copies import Copies
from rlsync.weight_sync.digest import Digester, Part, TensorDigest
from rlsync.weight_sync.direct import Offer, answer, find_offers, open_offers, overlap
from rlsync.weight_sync.plan import ParamSpec, SyncPlan, torch_dtype
from rlsync.weight_sync.store import Address
from rlsync.weight_sync.transport import Channel


class Weights(Protocol):
    """The weights of one trainer rank, as `Sharded` in trainer/sharded.py holds them."""

    device: torch.device

    def local_parts(self) -> Iterator[Part]:
        """This rank's rows of the canonical tensors, in the order of the plan."""
        ...


class WeightSender:
    """Sends the weights of one trainer rank to the rollout workers.

    If all workers offer their memory, the rank writes its rows into their parameters. Otherwise the ranks all-gather
    one bucket of tensors after another, and the ranks with a channel pass the bucket on to the workers that they feed.
    No rank ever holds the whole model.

    Args:
        weights: the rank's weights.
    """

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._channel: Channel | None = None
        self._plan: SyncPlan | None = None
        self._targets: dict[str, list[Part]] | None = None
        self._copies: tuple[list[int], Copies] | None = None
        """The prepared copies into the targets, and the addresses of the rows from which they copy."""

    def open_channel(self, host: str, receivers: int) -> Address:
        """Open this rank's channel.

        Args:
            host: name or address under which the receivers reach this host.
            receivers: number of rollout workers that this rank feeds.

        Returns:
            The address to which the receivers connect.
        """
        self._channel = Channel(rank=0, world=1 + receivers, host=host, device=self._weights.device)
        return self._channel.address

    def connect(self, plan: SyncPlan) -> None:
        """Wait until all receivers have joined this rank's channel, if any, and choose the transport (collective).

        Args:
            plan: the plan of the sync, which the receivers share.

        Raises:
            RlsyncError: a receiver failed to offer its memory.
        """
        self._plan = plan
        offers: list[Offer | None] = []
        if self._channel is not None:
            self._channel.connect()
            offers = find_offers(self._channel)
        if self._weights.device.type == "cuda":
            self._targets, self._copies = _open_together(offers, self._weights.device), None
        if self._channel is not None:
            answer(self._channel, self._targets is not None)
            if self._targets is None:
                self._channel.prepare(plan.largest_bytes)

    def send(self) -> list[TensorDigest]:
        """Send all tensors (collective) and return the digests of this rank's rows."""
        digester = Digester()
        if self._targets is None:
            self._send_messages(digester)
        else:
            self._write(self._targets, digester)
        return digester.digests()

    def _send_messages(self, digester: Digester) -> None:
        """Send one bucket after another: this rank's rows side by side, rounded to the compute dtype."""
        assert self._plan is not None
        parts = self._weights.local_parts()  # in the plan's order
        for bucket in self._plan.buckets:
            dtype = torch_dtype(bucket[0].dtype)
            own = torch.empty(self._plan.message_elements(bucket), dtype=dtype, device=self._weights.device)
            digester.add(_fill(own, zip(bucket, itertools.islice(parts, len(bucket)), strict=True)))
            size = self._plan.ranks * own.numel()
            everyone = own.new_empty(size) if self._channel is None else self._channel.buffer(size, dtype)
            dist.all_gather_into_tensor(everyone, own)
            if self._channel is not None:
                self._channel.send(everyone)

    def _write(self, targets: dict[str, list[Part]], digester: Digester) -> None:
        """Write all rows into the workers' parameters at once, rounded to the compute dtype."""
        assert self._plan is not None
        parts = [part for part in self._weights.local_parts() if part.values.numel()]
        copies = self._copies_of(parts, targets)
        if self._channel is not None:
            self._channel.barrier()  # the workers that this rank feeds have finished their work
        dist.barrier()
        copies.run()
        digester.add(parts, torch_dtype(self._plan.buckets[0][0].dtype))
        torch.cuda.synchronize()
        dist.barrier()
        if self._channel is not None:
            self._channel.barrier()

    def _copies_of(self, parts: list[Part], targets: dict[str, list[Part]]) -> Copies:
        """The copies into all targets. Those of the last sync are used again unless a part has moved since."""
        places = [part.values.data_ptr() for part in parts]
        if self._copies is None or self._copies[0] != places:
            pairs = [overlap(part, target) for part in parts for target in targets.get(part.name, ())]
            self._copies = places, Copies([pair for pair in pairs if pair is not None])
        return self._copies[1]


def _open_together(offers: list[Offer | None], device: torch.device) -> dict[str, list[Part]] | None:
    """The parts of the workers of all ranks; None unless every rank can write to all of them (collective)."""
    everyone: list[list[Offer | None]] = [[]] * dist.get_world_size()
    dist.all_gather_object(everyone, offers)
    targets = open_offers([each for rank in everyone for each in rank], device)
    can = [False] * dist.get_world_size()
    dist.all_gather_object(can, targets is not None)
    return targets if all(can) else None


def _fill(message: torch.Tensor, bucket: Iterable[tuple[ParamSpec, Part]]) -> list[Part]:
    """Copy a rank's rows of a bucket side by side into its message, rounded to the message's dtype.

    Returns:
        The parts as views of the message; tensors of which the rank has no rows are left out.
    """
    taken = []
    offset = 0
    for spec, part in bucket:
        assert spec.name == part.name, f"the plan expects {spec.name}, and the next part is {part.name}"
        count = part.values.numel()
        if count:
            rows = message[offset : offset + count].view(part.values.shape)
            rows.copy_(part.values)
            taken.append(replace(part, values=rows))
            offset += count
    message[offset:].zero_()
    return taken
