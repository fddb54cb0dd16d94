"""The other kernels compile, with the launches that models need."""

from __future__ import annotations

import pytest
import torch

from rlsync.kernels import triton as kernels
from rlsync.kernels.keyed_sum import Rectangle
from rlsync.kernels.triton.symmetric import TreeAllReduce

BF16, FP32 = torch.bfloat16, torch.float32
STARTS = torch.tensor([0, 100, 200], dtype=torch.int32)
LENGTHS = torch.tensor([100, 100], dtype=torch.int32)
TABLE = torch.zeros(2, 16, dtype=torch.int32)


@pytest.mark.parametrize("capability", [89, 90])
@pytest.mark.parametrize(("heads", "kv_heads", "dim"), [(14, 2, 64), (32, 8, 128)])
def test_attention(gpu, capability, heads, kv_heads, dim):
    gpu(capability)
    q, k = torch.empty(200, heads, dim, dtype=BF16), torch.empty(200, kv_heads, dim, dtype=BF16)
    cache = torch.empty(32, kv_heads, 16, 2 * dim, dtype=BF16)
    kernels.packed_attention(q, k, k, STARTS, 1.0, 0)
    kernels.paged_attention(q, cache, TABLE, STARTS, LENGTHS, 1.0, 0)
    kernels.decode_attention(q[:2], cache, TABLE, LENGTHS, 1.0, 0)


def test_attention_in_fp32_finds_room(gpu):
    """Compiles for the GPU with the least shared memory."""
    gpu(89)
    q, k = torch.empty(200, 32, 128), torch.empty(200, 8, 128)
    kernels.packed_attention(q, k, k, STARTS, 1.0, 0)


@pytest.mark.parametrize("dtype", [BF16, FP32], ids=str)
@pytest.mark.parametrize("capability", [89, 90])
def test_rows(gpu, capability, dtype):
    gpu(capability)
    x, w = torch.empty(5, 4096, dtype=dtype), torch.empty(4096, dtype=dtype)
    kernels.rms_norm(x, w, 1e-6)
    kernels.rms_norm(x.view(5, 32, 128), w[:128], 1e-6)
    kernels.add_rms_norm(x, x, w, 1e-6)
    kernels.silu_and_mul(x[:, :2048], x[:, 2048:])
    q, k = x.view(5, 32, 128), x[:, :1024].view(5, 8, 128)
    kernels.rope(q, k, torch.empty(64, 128, dtype=dtype), torch.zeros(5, dtype=torch.int64))
    slots = torch.zeros(5, dtype=torch.int64)
    kernels.write_cache(k, k, torch.empty(32, 8, 16, 256, dtype=dtype), slots)


@pytest.mark.parametrize("capability", [89, 90])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_scores(gpu, capability, temperature):
    gpu(capability)
    logits, ids = torch.empty(5, 5000), torch.zeros(5, dtype=torch.int64)
    kernels.draw(kernels.logprobs(logits, temperature), ids, ids)
    kernels.draw_scored(logits, temperature, ids, ids)
    _, entropy, stats, *_ = kernels.row_scores(logits, temperature, ids, ids, ids)
    for extra in ((None, None), (entropy, entropy)):
        kernels.logit_grads(logits, temperature, ids, stats, torch.empty(5), BF16, *extra)


@pytest.mark.parametrize("capability", [89, 90])
def test_weight_sync(gpu, capability):
    gpu(capability)
    kinds = ((BF16, BF16), (FP32, BF16), (FP32, FP32))
    for launch in kernels.copy_launches([(torch.empty(4, 64, dtype=b), torch.empty(4, 64, dtype=a)) for a, b in kinds]):
        launch()
    kernels.keyed_sums(
        [Rectangle(values=torch.empty(4, 64, dtype=a), dtype=b, row=0, column=0, columns=64) for a, b in kinds]
    )


@pytest.mark.parametrize("ranks", [2, 4, 8])
@pytest.mark.parametrize("biased", [False, True])
def test_all_reduce(gpu, ranks, biased):
    gpu(90)
    reducer = object.__new__(TreeAllReduce)
    reducer.rank, reducer.ranks, reducer.blocks = ranks - 1, ranks, 128
    reducer.peers = torch.zeros(ranks, dtype=torch.int64)
    for rows in (1, 16, 512):
        root = torch.empty(rows, 4096)
        bias = torch.empty(4096, dtype=BF16) if biased else None
        reducer(root, bias, BF16)
