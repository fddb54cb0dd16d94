"""Digests add up over shards and notice a bit, a swap and a stale part; plans divide tensors and assemble them."""

import pytest
import torch
import torch.nn.functional as F

from rlsync.weight_sync.digest import Digester, Part, combine, differing
from rlsync.weight_sync.plan import ParamSpec, make_plan


def _parts(t, rows, columns):
    digester = Digester()
    for r0, r1 in rows:
        for c0, c1 in columns:
            digester.add([Part(name="w", values=t[r0:r1, c0:c1], row=r0, column=c0, columns=t.shape[1])])
    return digester.digests()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_parts_add_up(dtype):
    t = torch.randn(10, 6).to(dtype)
    whole = combine(_parts(t, [(0, 10)], [(0, 6)]))
    assert combine(_parts(t, [(0, 3), (3, 10)], [(0, 6)])) == whole
    assert combine(_parts(t, [(0, 10)], [(0, 2), (2, 6)])) == whole
    assert combine(_parts(t, [(0, 10), (0, 10)], [(0, 6)])) == whole  # a replica counts once


def test_a_bit_a_swap_and_a_shift_are_noticed():
    t = torch.randn(4, 4)
    whole = combine(_parts(t, [(0, 4)], [(0, 4)]))
    bit, swapped = t.clone(), t.clone()
    bit.view(torch.int32)[2, 1] ^= 1
    swapped[0, 0], swapped[3, 3] = t[3, 3], t[0, 0]
    for other in (bit, swapped, t.roll(1, 0)):
        assert differing(whole, combine(_parts(other, [(0, 4)], [(0, 4)]))) == ["w"]


def test_replicas_that_differ_have_no_digest():
    t = torch.randn(2, 2)
    torn = combine([*_parts(t, [(0, 2)], [(0, 2)]), *_parts(t + 1, [(0, 2)], [(0, 2)])])
    assert torn == {"w": None}
    assert differing(torn, torn) == ["w"]
    whole = combine(_parts(t, [(0, 2)], [(0, 2)]) * 2)
    assert differing(whole, whole) == []  # the control
    assert differing(whole, torn) == ["w"]


def test_a_missing_tensor_differs():
    assert differing({"a": 1, "b": 2}, {"a": 1}) == ["b"]


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_a_plan_assembles_what_ranks_send(ranks):
    tensors = {"a": torch.randn(5, 3), "b": torch.randn(7), "c": torch.randn(1, 4)}
    specs = [ParamSpec(name=n, shape=tuple(t.shape), dtype="float32") for n, t in tensors.items()]
    plan = make_plan(specs, ranks, bucket_bytes=100)
    assert len(plan.buckets) > 1
    for bucket in plan.buckets:
        messages = []
        for rank in range(ranks):
            rows = [tensors[s.name][slice(*plan.rows(s, rank))].reshape(-1) for s in bucket]
            own = torch.cat(rows)
            messages.append(F.pad(own, (0, plan.message_elements(bucket) - own.numel())))
        for name, tensor in plan.assemble(bucket, messages):
            assert torch.equal(tensor, tensors[name])
