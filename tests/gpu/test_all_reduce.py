"""The tree all-reduce through peer memory and through NCCL: the bits of a gather and the tree on one rank.

The file runs itself, with one process for each GPU. Each rank reports the checks that it has passed, and the traceback
of a failure.
"""

import json
import os
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from rlsync.kernels import order
from rlsync.kernels.collectives import all_gather, finish_across

SHAPES = [(t, n) for t in (1, 3, 16, 64, 257, 2048) for n in (1024, 4096)] + [(7, 1001), (2500, 4096)]
MIXED = [(1, 1024), (64, 4096), (700, 4096), (3, 1024), (257, 4096), (2048, 1024), (16, 4096), (2500, 4096)]
SECONDS = 180


def _root(shape, seed, rank):
    """Exponents far apart and infinities, of both signs where ranks meet."""
    torch.manual_seed(seed * 64 + rank)
    root = torch.randn(shape, device="cuda")
    root *= torch.exp2(torch.randint(-40, 41, shape, device="cuda").float())
    root[0, 5] = torch.inf
    root[-1, 7 + rank] = -torch.inf
    root[-1, 3] = torch.inf if rank else -torch.inf
    return root


def _bias(n):
    return torch.linspace(-3, 3, n, device="cuda").to(torch.bfloat16)


def _same(a, b):
    bits = torch.int16 if a.itemsize == 2 else torch.int32
    a_bits, b_bits = (torch.where(t.isnan(), torch.zeros_like(t), t).view(bits) for t in (a, b))
    return a.dtype == b.dtype and torch.equal(a.isnan(), b.isnan()) and torch.equal(a_bits, b_bits)


def _expected(root, group, bias, dtype):
    return order.finish(order.tree_sum(all_gather(root, group)), bias, dtype)


def _forms(reducer, root, group, bias, dtype):
    from rlsync.kernels.triton.symmetric import LOW_LATENCY_SLOT_BYTES, PART_BYTES, SLOT_BYTES, gather_and_finish

    out = {"chosen": finish_across(root, group, bias, dtype), "gather": gather_and_finish(root, group, bias, dtype)}
    for name, form, limit in (
        ("words", reducer.low_latency, LOW_LATENCY_SLOT_BYTES // (2 * group.size())),
        ("one", reducer.one_shot, SLOT_BYTES // group.size()),
        ("two", reducer.two_shot, PART_BYTES),
    ):
        if root.nbytes <= limit:
            out[name] = torch.empty(root.shape, dtype=dtype, device="cuda")
            form(root, bias, out[name])
    return out


def every_form_gives_the_bits_of_the_tree(reducer, group):
    for seed, (t, n) in enumerate(SHAPES):
        root = _root((t, n), seed, group.rank())
        for bias in (None, _bias(n)):
            for dtype in (torch.bfloat16, torch.float32):
                expected = _expected(root, group, bias, dtype)
                for name, y in _forms(reducer, root, group, bias, dtype).items():
                    assert _same(y, expected), (name, t, n, bias is not None, dtype)


def control_other_roots_or_another_order_differ(reducer, group):
    root = torch.randn(16, 4096, device="cuda")
    parts = all_gather(root, group)
    wrong = parts.clone()
    if group.size() == 2:  # two roots have only one order, so one of them differs in the last bit
        wrong[1] = torch.nextafter(wrong[1], torch.full_like(root, torch.inf))
    else:
        wrong[[1, 2]] = parts[[2, 1]]
    for name, y in _forms(reducer, root, group, None, torch.float32).items():
        assert _same(y, order.tree_sum(parts)), name
        assert not _same(y, order.tree_sum(wrong)), name


def calls_follow_each_other_without_a_wait(reducer, group):
    """Ranks sleep for different times, so a buffer that is overwritten too early would show."""
    bases = [_root(shape, i, group.rank()) for i, shape in enumerate(MIXED)]
    calls = []
    for i in range(200):
        root = bases[i * 5 % len(bases)] * (1 + i / 256)
        if i * 7 % 11 == group.rank():
            torch.cuda._sleep(200_000 + 10_000 * i)
        calls.append((root, finish_across(root, group, None, torch.bfloat16)))
    for i, (root, y) in enumerate(calls):
        assert _same(y, _expected(root, group, None, torch.bfloat16)), i


def graphs_replay_among_other_calls(reducer, group):
    from rlsync.kernels.triton.symmetric import gather_and_finish

    roots = [_root(shape, 0, group.rank()) for shape in MIXED]
    biases = [_bias(n) for _, n in MIXED]

    def forward():
        outs = [finish_across(root, group, b, torch.bfloat16) for root, b in zip(roots, biases, strict=True)]
        return [*outs, gather_and_finish(roots[1], group, biases[1], torch.bfloat16)]

    forward()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        captured = forward()
    for step in range(12):
        for i, root in enumerate(roots):
            root.copy_(_root(root.shape, 100 * step + i, group.rank()))
        for _ in range(step % 3):
            finish_across(roots[step % len(roots)], group, None, torch.float32)
        graph.replay()
        for i, y in enumerate(captured):
            j = i if i < len(roots) else 1
            assert _same(y, _expected(roots[j], group, biases[j], torch.bfloat16)), (step, i)


def every_form_holds_for_long(reducer, group):
    """Thousands of calls in replays of a graph. The roots change sign at each call, so an old root would show."""
    shapes = [(t, 4096) for t in (1, 3, 16, 32, 3, 1)]
    roots = [torch.randn(shape, device="cuda") for shape in shapes]
    expected = [order.tree_sum(all_gather(root, group)) for root in roots]
    outs = [torch.empty_like(root) for root in roots]
    wrong = torch.zeros((), dtype=torch.int64, device="cuda")

    def calls():
        for root, right, out in zip(roots, expected, outs, strict=True):
            small = reducer.low_latency
            for form in (small, reducer.one_shot, small, reducer.two_shot, small):
                root.neg_()
                right.neg_()
                form(root, None, out)
                wrong.add_((out != right).sum())

    calls()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        calls()
    for step in range(1000):
        if step % 7 == group.rank():
            torch.cuda._sleep(50_000)
        graph.replay()
    assert int(wrong) == 0
    roots[0][0, 0] += 1  # the control
    graph.replay()
    assert int(wrong) > 0


def without_shared_memory_nccl_gives_the_same_bits(reducer, group):
    from rlsync.kernels.triton import symmetric

    root = torch.randn(3, 64, device=torch.device("cuda", group.rank()))
    shared = finish_across(root, group, None, torch.bfloat16)
    reducers, symmetric._reducers = symmetric._reducers, {}
    try:
        gathered = finish_across(root, group, None, torch.bfloat16, share_memory=False)
        assert not symmetric._reducers  # no shared memory was opened
    finally:
        symmetric._reducers = reducers
    assert torch.equal(gathered, shared)


CHECKS = [
    every_form_gives_the_bits_of_the_tree,
    control_other_roots_or_another_order_differ,
    calls_follow_each_other_without_a_wait,
    graphs_replay_among_other_calls,
    every_form_holds_for_long,
    without_shared_memory_nccl_gives_the_same_bits,
]


def _run(rank, ranks, port, report):
    from rlsync.kernels.triton.symmetric import open_reducer

    torch.cuda.set_device(rank)
    dist.init_process_group("nccl", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=ranks)
    group = dist.new_group(list(range(ranks)))  # as vLLM makes its groups
    reducer = open_reducer(group, torch.device("cuda", rank))
    results = {"opened": reducer is not None}
    for check in CHECKS if reducer else []:
        try:
            check(reducer, group)
            torch.cuda.synchronize()
            results[check.__name__] = "passed"
        except Exception:
            results[check.__name__] = traceback.format_exc()
        Path(report).write_text(json.dumps(results))
        if results[check.__name__] != "passed":
            os._exit(1)  # the other ranks hang in a collective and are ended
    Path(report).write_text(json.dumps(results))
    dist.destroy_process_group()


@pytest.fixture(scope="module", params=[2, 4, 8])
def reports(request, tmp_path_factory):
    """The report of each rank."""
    ranks = request.param
    if torch.cuda.device_count() < ranks:
        pytest.skip(f"wants {ranks} GPUs")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    folder = tmp_path_factory.mktemp("ranks")
    files = [folder / f"{rank}.json" for rank in range(ranks)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    children = [
        subprocess.Popen([sys.executable, __file__, str(rank), str(ranks), str(port), str(file)], env=env)
        for rank, file in enumerate(files)
    ]
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and any(c.poll() is None for c in children) and not any(c.poll() for c in children):
        time.sleep(0.2)
    time.sleep(1)
    for child in children:
        child.kill()
        child.wait()
    return [json.loads(file.read_text()) if file.exists() else {} for file in files]


def test_memory_is_shared(reports):
    assert all(report.get("opened") for report in reports), reports


@pytest.mark.parametrize("name", [check.__name__ for check in CHECKS])
def test_ranks(reports, name):
    assert all(report.get(name, "not reached") == "passed" for report in reports), [r.get(name) for r in reports]


if __name__ == "__main__":
    _run(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
