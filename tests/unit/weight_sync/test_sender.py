"""Ranks send the rounded model, whatever rows each holds, and the digests of their rows add up to the model's."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from rlsync.weight_sync.digest import Digester, combine, whole_rows
from rlsync.weight_sync.plan import ParamSpec, make_plan
from rlsync.weight_sync.sender import WeightSender

SHAPES = {"a": (5, 3), "b": (7,), "c": (1, 4), "d": (6, 2)}


def _model():
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


class _Weights:
    device = torch.device("cpu")

    def __init__(self, rank, plan):
        self._rank, self._plan = rank, plan

    def local_parts(self):
        model = _model()
        for bucket in self._plan.buckets:
            for spec in bucket:
                begin, end = self._plan.rows(spec, self._rank)
                yield whole_rows(spec.name, model[spec.name][begin:end], begin)


class _Recorder:
    """Takes the place of a channel."""

    def __init__(self):
        self.messages = []

    def buffer(self, size, dtype):
        return torch.empty(size, dtype=dtype)

    def send(self, message):
        self.messages.append(message.clone())


def _rank(rank, ranks, dtype, folder):
    dist.init_process_group("gloo", store=dist.FileStore(f"{folder}/store", ranks), rank=rank, world_size=ranks)
    specs = [ParamSpec(name=name, shape=shape, dtype=dtype) for name, shape in SHAPES.items()]
    plan = make_plan(specs, ranks, bucket_bytes=60)
    sender = WeightSender(_Weights(rank, plan))
    sender.connect(plan)
    sender._channel = recorder = _Recorder()
    digests = sender.send()
    torch.save((digests, recorder.messages, plan), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize(("ranks", "dtype"), [(1, "bfloat16"), (3, "bfloat16"), (3, "float32")])
def test_ranks_send_the_model(tmp_path, ranks, dtype):
    mp.spawn(_rank, (ranks, dtype, str(tmp_path)), nprocs=ranks)
    sent = [torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(ranks)]
    rounded = {name: t.to(getattr(torch, dtype)) for name, t in _model().items()}
    plan = sent[0][2]
    assert len(plan.buckets) > 1
    for _, messages, _ in sent:
        for bucket, message in zip(plan.buckets, messages, strict=True):
            for name, tensor in plan.assemble(bucket, list(message.chunk(ranks))):
                assert torch.equal(tensor, rounded[name])
    whole = Digester()
    whole.add([whole_rows(*named) for named in rounded.items()])
    expected = combine(whole.digests())
    assert combine(digest for digests, _, _ in sent for digest in digests) == expected
    rounded["c"][0, 0] += 1  # the control
    other = Digester()
    other.add([whole_rows(*named) for named in rounded.items()])
    assert combine(other.digests()) != expected


def test_parts_out_of_order_are_refused():
    specs = [ParamSpec(name=name, shape=shape, dtype="float32") for name, shape in SHAPES.items()]
    sender = WeightSender(_Weights(0, make_plan(specs[::-1], 1)))
    sender.connect(make_plan(specs, 1))
    with pytest.raises(AssertionError, match="the plan expects a"):
        sender.send()
