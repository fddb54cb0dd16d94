"""A store of the weight sync listens on one interface only, and values that a stranger writes to it are refused."""

import pickle
from datetime import timedelta

import psutil
import pytest
import torch
import torch.distributed as dist

from rlsync.errors import RlsyncError
from rlsync.weight_sync.direct import find_offers
from rlsync.weight_sync.store import join_store, serve_store
from rlsync.weight_sync.transport import Channel

CPU = torch.device("cpu")
SOON = timedelta(seconds=20)


def test_a_store_listens_on_one_interface():
    before = {c.laddr for c in psutil.Process().net_connections("inet") if c.status == psutil.CONN_LISTEN}
    store, address = serve_store("127.0.0.1", SOON)
    after = {c.laddr for c in psutil.Process().net_connections("inet") if c.status == psutil.CONN_LISTEN}
    assert {tuple(place) for place in after - before} == {("127.0.0.1", address.port)}
    join_store(address, SOON).set("a", "b")
    assert store.get("a") == b"b"
    # The control: a store that PyTorch makes by default listens on all interfaces.
    stock = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=SOON)
    listening = {c.laddr for c in psutil.Process().net_connections("inet") if c.status == psutil.CONN_LISTEN}
    assert {place.ip for place in listening - after} & {"::", "0.0.0.0"}
    assert stock.port != address.port


class Touch:
    """Runs code when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("form", ["pickle", "plain", "forged", "moved"])
def test_what_a_stranger_writes_is_refused_and_does_not_run(tmp_path, form):
    sender = Channel(rank=0, world=2, device=CPU)
    worker = Channel(rank=1, world=2, device=CPU, address=sender.address)
    worker.leave("other", {"offer": None})
    stranger = dist.TCPStore("127.0.0.1", sender.address.port, is_master=False, timeout=SOON)
    mark = tmp_path / "ran"
    values = {
        "pickle": pickle.dumps(Touch(str(mark))).hex(),
        "plain": '{"offer": null}',
        "forged": "0" * 64 + ' {"offer": null}',
        "moved": stranger.get("other"),  # signed, but for another name
    }
    stranger.set("offer1", values[form])
    with pytest.raises(
        RlsyncError, match=r"weight channel: the value 'offer1' was not written by a process of this run"
    ):
        find_offers(sender)
    assert not mark.exists()
    worker.leave("offer1", {"offer": None})  # the control
    assert find_offers(sender) == [None]


def test_a_secret_does_not_show():
    sender = Channel(rank=0, world=2, device=CPU)
    assert len(sender.address.secret) == 64
    assert sender.address.secret not in repr(sender.address)
    assert Channel(rank=0, world=2, device=CPU).address.secret != sender.address.secret
