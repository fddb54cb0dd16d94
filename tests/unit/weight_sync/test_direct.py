"""Direct sync: ranks write their rows into workers' parameters, here in memory that the processes share."""

import threading
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from rlsync.errors import DivergenceError, RlsyncError
from rlsync.weight_sync import direct
from rlsync.weight_sync.digest import Digester, Part, combine, differing, whole_rows
from rlsync.weight_sync.direct import Offer, answer, by_name, check_layout, find_offers, make_offer, offer, open_offers
from rlsync.weight_sync.plan import ParamSpec, make_plan
from rlsync.weight_sync.sender import WeightSender
from rlsync.weight_sync.transport import Channel

CPU = torch.device("cpu")

SHAPES = {"stacked": (6, 4), "bias": (6,), "row_parallel": (5, 8), "norm": (3,)}
SPECS = [ParamSpec(name=name, shape=shape, dtype="bfloat16") for name, shape in SHAPES.items()]


def _model():
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def _parts(tp, rank):
    """The parts of a TP worker in shared memory: rows of one tensor, columns of another, and whole tensors."""
    stacked, columns = (torch.full(s, torch.nan, dtype=torch.bfloat16) for s in ((12 // tp, 4), (5, 8 // tp)))
    rest = torch.full((6 // tp + 3,), torch.nan, dtype=torch.bfloat16)
    for t in (stacked, columns, rest):
        t.share_memory_()
    rows = 6 // tp
    return [
        Part(name="stacked", values=stacked[rows:], row=rank * rows, columns=4),  # behind another part
        Part(name="bias", values=rest[:rows], row=rank * rows, columns=1),
        Part(name="row_parallel", values=columns, row=0, column=rank * (8 // tp), columns=8),
        Part(name="norm", values=rest[rows:], row=0, columns=1),
    ]


def _expected(part):
    whole = _model()[part.name].bfloat16()[part.row : part.row + len(part.values)]
    return whole if whole.ndim == 1 else whole[:, part.column : part.column + part.values.shape[1]]


class _Weights:
    device = torch.device("cpu")

    def __init__(self, rank, plan):
        self._rank, self._plan = rank, plan

    def local_parts(self):
        for spec in SPECS:
            begin, end = self._plan.rows(spec, self._rank)
            yield whole_rows(spec.name, _model()[spec.name][begin:end], begin)


def _rank(rank, ranks, targets, folder):
    torch.cuda.synchronize = lambda: None
    dist.init_process_group("gloo", store=dist.FileStore(f"{folder}/store", ranks), rank=rank, world_size=ranks)
    plan = make_plan(SPECS, ranks, bucket_bytes=60)
    sender = WeightSender(_Weights(rank, plan))
    sender.connect(plan)
    sender._targets = targets
    torch.save(sender.send(), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize(("ranks", "tp"), [(1, 2), (2, 1), (4, 2)])
def test_workers_have_the_model(tmp_path, ranks, tp):
    parts = [_parts(tp, rank) for rank in range(tp)]
    targets = by_name(part for worker in parts for part in worker)
    mp.spawn(_rank, (ranks, targets, str(tmp_path)), nprocs=ranks)
    for name in SHAPES:
        assert all(torch.equal(part.values, _expected(part)) for part in targets[name])
    sent = combine(
        digest for rank in range(ranks) for digest in torch.load(tmp_path / f"{rank}.pt", weights_only=False)
    )

    def received():
        digester = Digester()
        for worker in parts:
            digester.add(worker)
        return combine(digester.digests())

    assert received() == sent
    targets["row_parallel"][-1].values[0, 0] += 1  # the control
    assert differing(sent, received()) == ["row_parallel"]


def _loader(parts):
    """A loader that loads tensors to where `parts` say."""

    def load(tensors):
        for name, tensor in tensors:
            for part in parts:
                if part.name == name:
                    rows = tensor[part.row : part.row + len(part.values)]
                    across = slice(part.column, part.column + part.columns)
                    part.values.copy_(rows if rows.ndim == 1 else rows[:, across][:, : part.values.shape[1]])

    return load


def test_a_layout_is_proved():
    parts = _parts(2, 1)
    check_layout(SPECS, parts, _loader(parts))


@pytest.mark.parametrize(("name", "place"), [*((name, {"row": 1}) for name in SHAPES), ("row_parallel", {"column": 0})])
def test_another_layout_is_refused(name, place):
    parts = _parts(2, 1)
    index = list(SHAPES).index(name)
    wrong = list(parts)
    wrong[index] = replace(parts[index], **place)
    with pytest.raises(DivergenceError, match=f"vLLM does not load {name} to where"):
        check_layout(SPECS, wrong, _loader(parts))


def test_a_part_of_no_tensor_is_refused():
    parts = _parts(1, 0)
    with pytest.raises(DivergenceError, match="vLLM does not load norm to where"):
        check_layout(SPECS[:-1], parts, _loader(parts))


def _joined(make):
    """The results of a worker that makes this offer, and of the trainer rank that finds it."""
    sender = Channel(rank=0, world=2, device=CPU)
    results = {}

    def work():
        worker = Channel(rank=1, world=2, device=CPU, address=sender.address)
        try:
            results["taken"] = make_offer(worker, make)
        except Exception as error:
            results["raised"] = error

    thread = threading.Thread(target=work)
    thread.start()
    try:
        offers = find_offers(sender)
        answer(sender, open_offers(offers, CPU) is not None)
    except RlsyncError as error:
        results["found"] = error
    thread.join(60)
    return results


@pytest.mark.parametrize("offered", [None, Offer(host="elsewhere", parts=[])])
def test_a_worker_that_cannot_be_written_to_gets_messages(offered):
    assert _joined(lambda: offered) == {"taken": False}


def test_a_worker_of_this_host_is_written_to():
    assert _joined(lambda: offer([])) == {"taken": True}


@pytest.mark.parametrize(
    ("error", "said"), [(DivergenceError("weight layout"), "weight layout"), (OSError("x"), "OSError: x")]
)
def test_what_a_worker_raises_reaches_the_rank_that_waits_for_it(error, said):
    def fail():
        raise error

    results = _joined(fail)
    assert results["raised"] is error
    assert said in str(results["found"])
    assert "taken" not in results


def test_memory_that_cannot_be_shared_is_not_offered(monkeypatch):
    def fail(_):
        raise RuntimeError("no IPC here")

    monkeypatch.setattr(direct, "handle_of", fail)
    assert offer(_parts(1, 0)) is None
