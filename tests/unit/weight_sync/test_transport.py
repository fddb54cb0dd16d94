"""Channels on the CPU: every receiver gets what was sent, in order; and the seats of receivers."""

import threading
import time

import pytest
import torch

from rlsync.weight_sync.store import Address
from rlsync.weight_sync.transport import Channel, seats

CPU = torch.device("cpu")


def test_every_receiver_gets_what_was_sent():
    sent = [torch.randn(1000).to(torch.bfloat16), torch.randn(0), torch.arange(3.0)]
    sender = Channel(rank=0, world=3, device=CPU)
    places = seats([0, 0], {0: sender.address})
    got: list[list[torch.Tensor]] = [[], []]

    def receive(index: int) -> None:
        seat = places[index]
        channel = Channel(rank=seat.rank, world=seat.world, device=CPU, address=seat.address)
        channel.connect()
        got[index] += [channel.receive(tensor.numel(), tensor.dtype) for tensor in sent]

    threads = [threading.Thread(target=receive, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    sender.connect()
    for tensor in sent:
        sender.send(sender.buffer(tensor.numel(), tensor.dtype).copy_(tensor))
    for thread in threads:
        thread.join(60)
    assert all(torch.equal(a, b) for tensors in got for a, b in zip(tensors, sent, strict=True))
    assert not torch.equal(got[0][2], sent[2].flip(0))  # the control


@pytest.mark.parametrize("buffers", [2, 1])
def test_messages_through_two_buffers(monkeypatch, buffers):
    """Staged messages, as on a shared GPU, here in shared memory: whole or in pieces.

    They are not overwritten before they have been read, as they would be with a single buffer.
    """
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    staging = torch.empty(buffers, 512, dtype=torch.uint8).expand(2, 512)
    sent = [torch.randn(size) for size in (100, 128, 1000, 0, 3, 129, 256)]
    sender = Channel(rank=0, world=2, device=CPU)
    (seat,) = seats([0], {0: sender.address})
    got: list[torch.Tensor] = []

    def receive() -> None:
        channel = Channel(rank=seat.rank, world=seat.world, device=CPU, address=seat.address)
        channel.connect()
        channel._staging = staging
        for tensor in sent:
            arrived = channel.receive(tensor.numel(), tensor.dtype)
            time.sleep(0.01)  # the sender must not overtake the receivers
            got.append(arrived.clone())

    thread = threading.Thread(target=receive)
    thread.start()
    sender.connect()
    sender._staging = staging
    for tensor in sent:
        sender.send(sender.buffer(tensor.numel(), tensor.dtype).copy_(tensor))
    thread.join(60)
    assert all(torch.equal(a, b) for a, b in zip(got, sent, strict=True)) == (buffers == 2)


def test_a_channel_is_connected_before_its_use():
    with pytest.raises(RuntimeError, match=r"before connect\(\)"):
        Channel(rank=0, world=2, device=CPU).send(torch.ones(1))


def test_seats_count_up_at_each_sender():
    addresses = {rank: Address(host="h", port=rank) for rank in (0, 3)}
    found = seats([0, 3, 0, 3, 3], addresses)
    assert [(seat.address.port, seat.rank, seat.world) for seat in found] == [
        (0, 1, 3),
        (3, 1, 4),
        (0, 2, 3),
        (3, 2, 4),
        (3, 3, 4),
    ]
