"""A trainer rank that writes into a real vLLM worker's parameters, on the CPU, where both are threads of one process.

    python direct_sync.py FAMILY FOLDER

It replaces only CUDA IPC: a handle is a tensor's place in a list. FOLDER/differ.json names the tensors that differ
after each of two syncs, and after a third with a planted fault.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

import torch
from safetensors.torch import load_file

from rlsync.cluster.env import apply_to_engine_host
from rlsync.config.cluster import Device
from rlsync.config.kernels import RowParallel
from rlsync.config.model import ComputeDtype
from rlsync.config.parity import Fault
from rlsync.verify.cases import Cell, Family, build_model, engine_settings, kv_blocks
from rlsync.weight_sync import direct
from rlsync.weight_sync.digest import combine, differing, whole_rows
from rlsync.weight_sync.plan import ParamSpec, make_plan
from rlsync.weight_sync.sender import WeightSender
from rlsync.weight_sync.transport import Seat

_shared: list[torch.Tensor] = []


def _handle_of(t: torch.Tensor) -> int:
    _shared.append(t)
    return len(_shared) - 1


class _Weights:
    device = torch.device("cpu")

    def __init__(self, folder: Path) -> None:
        self.tensors = {name: t.float() for name, t in load_file(folder / "model.safetensors").items()}

    def specs(self) -> list[ParamSpec]:
        return [ParamSpec(name=n, shape=tuple(t.shape), dtype="bfloat16") for n, t in self.tensors.items()]

    def local_parts(self):
        for name, tensor in self.tensors.items():
            yield whole_rows(name, tensor)

    def train(self) -> None:
        for tensor in self.tensors.values():
            tensor += torch.randn_like(tensor)


def main(family: Family, folder: Path) -> list[list[str]]:
    cell = Cell(family, ComputeDtype.bfloat16, 1, RowParallel.tree)
    model = build_model(cell, folder)
    settings = engine_settings(cell, model, Device.cpu)
    apply_to_engine_host(settings)
    from rlsync.rollout.engine import RolloutEngine

    engine = RolloutEngine(settings, kv_blocks=kv_blocks(family))
    weights = _Weights(model)
    sender = WeightSender(weights)
    seat = Seat(address=sender.open_channel("127.0.0.1", 1), rank=1, world=2)
    plan = make_plan(weights.specs(), 1, bucket_bytes=1 << 16)
    faults = [Fault.none, Fault.none, Fault.stale_shard]
    sent = []

    def train() -> None:  # as WeightSender.connect on a GPU
        sender._plan = plan
        sender._channel.connect()
        sender._targets = direct.open_offers(direct.find_offers(sender._channel), weights.device)
        direct.answer(sender._channel, sender._targets is not None)
        for _ in faults:
            weights.train()
            sent.append(combine(sender.send()))

    direct.handle_of, direct.open_handle = _handle_of, lambda handle, device: _shared[handle]
    torch.cuda.synchronize = lambda: None
    trainer = threading.Thread(target=train, daemon=True)
    trainer.start()
    engine._engine.collective_rpc("rlsync_connect", args=(plan, [seat], True))
    received = [combine(engine.receive_weights(version, fault)) for version, fault in enumerate(faults)]
    trainer.join(60)
    engine.shutdown()
    assert _shared
    assert sent[0] != sent[1] != sent[2]
    return [differing(*pair) for pair in zip(sent, received, strict=True)]


if __name__ == "__main__":
    result = main(Family(sys.argv[1]), Path(sys.argv[2]))
    Path(sys.argv[2], "differ.json").write_text(json.dumps(result))
