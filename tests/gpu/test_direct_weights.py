"""A trainer rank writes into the parameters of a worker in another process, on its own GPU or on one it cannot see.

The file runs itself as the trainer.
"""

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from rlsync.weight_sync.digest import Digester, Part, combine, differing, whole_rows
from rlsync.weight_sync.direct import make_offer, offer
from rlsync.weight_sync.plan import ParamSpec, make_plan
from rlsync.weight_sync.sender import WeightSender
from rlsync.weight_sync.transport import Channel

SHAPES = {f"{kind}{layer}": shape for layer in range(9) for kind, shape in (("w", (1000, 4096)), ("norm", (4096,)))}
SPECS = [ParamSpec(name=name, shape=shape, dtype="bfloat16") for name, shape in SHAPES.items()]
SENDS = 3


def _model():
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


class _Weights:
    device = torch.device("cuda", 0)

    def __init__(self):
        self.parts = [whole_rows(name, t.cuda()) for name, t in _model().items()]

    def local_parts(self):
        return iter(self.parts)


def _train(folder):
    store = dist.FileStore(str(folder / "store"), 1)
    dist.init_process_group("cpu:gloo,cuda:nccl", store=store, rank=0, world_size=1)
    weights = _Weights()
    sender = WeightSender(weights)
    (folder / "part").write_bytes(pickle.dumps(sender.open_channel("127.0.0.1", 1)))
    (folder / "part").rename(folder / "address")
    sender.connect(make_plan(SPECS, 1, bucket_bytes=20 << 20))
    for _ in range(SENDS):
        (folder / "digests").write_bytes(pickle.dumps(sender.send()))
        for part in weights.parts:
            part.values += 1
    dist.destroy_process_group()


def _halves():
    """Columns of the matrices, one after another in one allocation, and whole vectors."""
    memory = torch.full((9, 1000, 2048), torch.nan, dtype=torch.bfloat16, device="cuda")
    for layer in range(9):
        yield Part(name=f"w{layer}", values=memory[layer], row=0, column=2048, columns=4096)
        yield whole_rows(f"norm{layer}", torch.zeros(4096, dtype=torch.bfloat16, device="cuda"))


def _digests(parts):
    digester = Digester()
    digester.add(parts)
    return combine(digester.digests())


@pytest.mark.parametrize("gpu", [0, 1])
def test_written_in_place(gpu, tmp_path):
    if torch.cuda.device_count() <= gpu:
        pytest.skip("needs two GPUs")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0,1").split(",")[gpu]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "CUDA_VISIBLE_DEVICES": visible}
    trainer = subprocess.Popen([sys.executable, __file__, str(tmp_path)], env=env)
    try:
        while not (tmp_path / "address").is_file() and trainer.poll() is None:
            time.sleep(0.1)
        address = pickle.loads((tmp_path / "address").read_bytes())
        channel = Channel(rank=1, world=2, device=torch.device("cuda", 0), address=address)
        channel.connect()
        parts = list(_halves())
        assert make_offer(channel, lambda: offer(parts))
        model = {name: t.cuda() for name, t in _model().items()}
        for _ in range(SENDS):
            channel.barrier()
            channel.barrier()
            for part in parts:
                whole = model[part.name].bfloat16()
                assert torch.equal(part.values, whole if whole.ndim == 1 else whole[:, 2048:])
                model[part.name] += 1
        assert trainer.wait(60) == 0
    finally:
        trainer.kill()
        trainer.wait()
    vectors = [part for part in parts if part.name.startswith("norm")]
    sent = {n: d for n, d in combine(pickle.loads((tmp_path / "digests").read_bytes())).items() if "norm" in n}
    assert _digests(vectors) == sent
    vectors[0].values[7] += 1  # the control
    assert differing(sent, _digests(vectors)) == ["norm0"]


if __name__ == "__main__":
    _train(Path(sys.argv[1]))
