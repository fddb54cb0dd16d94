"""GPU kernels against cuBLAS and flash attention 2 and 3 (the latter as vLLM ships it), as ratios in one run.

    python benchmarks/gpu_kernels.py --record

Times are medians of CUDA-graph replays. Few rows read each weight from memory: copies of it take turns.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

import results
import torch
import triton
from vllm.vllm_flash_attn import flash_attn_varlen_func

from rlsync.kernels import ops
from rlsync.kernels.attention_spec import AttentionSpec
from rlsync.kernels.triton import matmul

SHAPES = (
    (1, 4096, 4096), (16, 4096, 4096), (64, 4096, 4096), (1, 12288, 4096), (64, 12288, 4096), (64, 3072, 1024),
    (256, 12288, 4096), (512, 4096, 4096), (1024, 6144, 2048), (2048, 4096, 4096), (4096, 12288, 4096),
    (8192, 4096, 4096), (8192, 12288, 4096),
)  # fmt: skip
"""M, K, N."""
_CACHE_BYTES = 300e6
"""More than the L2 cache holds."""


def seconds(calls: list[Callable[[], object]], repeats: int = 9) -> float:
    """Median time of one call, all of them captured in a graph."""
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        calls[0]()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            for call in calls:
                call()
        graph.replay()
        times = []
        for _ in range(repeats):
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record(stream)
            graph.replay()
            end.record(stream)
            end.synchronize()
            times.append(begin.elapsed_time(end) / 1e3)
    return sorted(times)[repeats // 2] / len(calls)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, device="cuda").to(torch.bfloat16)


def weights_in_turn(n: int, k: int) -> list[torch.Tensor]:
    """Copies of a weight [n, k], more than the cache holds."""
    return [random(n, k) for _ in range(max(4, math.ceil(_CACHE_BYTES / (2 * k * n))))]


def gemm_row(m: int, k: int, n: int) -> dict[str, object]:
    x = random(m, k)
    weights = weights_in_turn(n, k)
    stock = seconds([lambda w=w: torch.matmul(x, w.t()) for w in weights])
    row: dict[str, object] = {
        "m": m,
        "k": k,
        "n": n,
        "cublas_us": stock * 1e6,
    }
    for leaves in (8, 2, 1):
        ours = seconds([lambda w=w, leaves=leaves: matmul(x, w, None, leaves, torch.bfloat16) for w in weights])
        row[f"leaves_{leaves}"] = stock / ours
    return row


def prefill_row(heads: int, kv_heads: int, dim: int, length: int, sequences: int) -> dict[str, object]:
    tokens = length * sequences
    q, k, v = random(tokens, heads, dim), random(tokens, kv_heads, dim), random(tokens, kv_heads, dim)
    starts = torch.arange(0, tokens + 1, length, dtype=torch.int32, device="cuda")
    stock = seconds([lambda: torch.ops.aten._flash_attention_forward(
        q, k, v, starts, starts, length, length, 0.0, True, False)])  # fmt: skip
    flash3 = seconds([lambda: flash_attn_varlen_func(
        q, k, v, max_seqlen_q=length, cu_seqlens_q=starts, max_seqlen_k=length, cu_seqlens_k=starts, causal=True,
        fa_version=3)])  # fmt: skip
    ours = seconds([lambda: ops.attention(q, k, v, AttentionSpec(starts=starts, scale=dim**-0.5))])
    flop = 2 * sequences * length * length * heads * dim
    return attention_row("prefill", (heads, kv_heads, dim), (length, length, sequences), ours, flop=flop,
                         flash2=stock, flash3=flash3)  # fmt: skip


def chunk_row(heads: int, kv_heads: int, dim: int, queries: int, length: int, sequences: int) -> dict[str, object]:
    """Chunked prefill: the last `queries` tokens of sequences in pages of 16."""
    pages = length // 16
    cache = random(sequences * pages, kv_heads, 16, 2 * dim)
    table = torch.randperm(sequences * pages, device="cuda", dtype=torch.int32).view(sequences, pages)
    q = random(sequences * queries, heads, dim)
    starts = torch.arange(0, sequences * queries + 1, queries, device="cuda", dtype=torch.int32)
    lengths = torch.full((sequences,), length, device="cuda", dtype=torch.int32)
    ours = seconds([lambda: ops.paged_attention(q, cache, table, starts, lengths, dim**-0.5)])
    keys, values = (part.contiguous() for part in cache.transpose(1, 2).split(dim, -1))
    flash3 = seconds([lambda: flash_attn_varlen_func(
        q, keys, values, max_seqlen_q=queries, cu_seqlens_q=starts, max_seqlen_k=length, seqused_k=lengths, causal=True,
        block_table=table, fa_version=3)])  # fmt: skip
    flop = 4 * sequences * heads * dim * queries * (length - queries / 2)
    return attention_row("chunk", (heads, kv_heads, dim), (queries, length, sequences), ours, flop=flop, flash3=flash3)


def decode_row(heads: int, kv_heads: int, dim: int, length: int, sequences: int) -> dict[str, object]:
    pages = length // 16
    cache = random(sequences * pages, 16, kv_heads, 2 * dim).transpose(1, 2)
    table = torch.randperm(sequences * pages, device="cuda", dtype=torch.int32).view(sequences, pages)
    q = random(sequences, heads, dim)
    starts = torch.arange(sequences + 1, device="cuda", dtype=torch.int32)
    lengths = torch.full((sequences,), length, device="cuda", dtype=torch.int32)
    ours = seconds([lambda: ops.decode_attention(q, cache, table, lengths, dim**-0.5)])
    keys, values = (cache.transpose(1, 2)[..., part] for part in (slice(dim), slice(dim, 2 * dim)))
    flash3 = seconds([lambda: flash_attn_varlen_func(
        q, keys, values, max_seqlen_q=1, cu_seqlens_q=starts, max_seqlen_k=length, seqused_k=lengths, causal=True,
        block_table=table, fa_version=3)])  # fmt: skip
    size = 4 * sequences * length * kv_heads * dim
    return attention_row("decode", (heads, kv_heads, dim), (1, length, sequences), ours, size=size, flash3=flash3)


def attention_row(
    phase: str,
    shape: tuple[int, int, int],
    load: tuple[int, int, int],
    ours: float,
    *,
    flop: float | None = None,
    size: float | None = None,
    flash2: float | None = None,
    flash3: float,
) -> dict[str, object]:
    """Heads, KV heads and channels; new tokens, context and sequences; the others in seconds."""
    return {
        "phase": phase, "heads": shape[0], "kv_heads": shape[1], "head_dim": shape[2],
        "new_tokens": load[0], "context": load[1], "sequences": load[2],
        "us": ours * 1e6, "tflops": flop and flop / ours * 1e-12, "gb_per_s": size and size / ours * 1e-9,
        "share_of_flash2": flash2 and flash2 / ours, "share_of_flash3": flash3 / ours,
    }  # fmt: skip


def show(title: str, rows: list[dict[str, object]]) -> None:
    print(title)
    print("  ".join(f"{key:>15}" for key in rows[0]))
    for row in rows:
        cells = ("" if v is None else f"{v:.2f}" if isinstance(v, float) else str(v) for v in row.values())
        print("  ".join(f"{cell:>15}" for cell in cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    results.add_options(parser)
    args = parser.parse_args()
    device = torch.cuda.get_device_name()
    print(device, "torch", torch.__version__, "triton", triton.__version__)
    gemm = [gemm_row(*shape) for shape in SHAPES]
    show("GEMM: share of cuBLAS's speed, by leaves of the tree", gemm)
    prefill = [prefill_row(*s) for s in (
        (32, 8, 128, 8192, 2), (32, 8, 128, 1024, 16), (16, 8, 128, 512, 64), (32, 8, 64, 4096, 4))]  # fmt: skip
    chunk = [chunk_row(*s) for s in (
        (32, 8, 128, 2048, 2048, 1), (32, 8, 128, 2048, 16384, 1), (16, 8, 128, 256, 512, 8),
        (32, 8, 64, 2048, 4096, 1))]  # fmt: skip
    decode = [decode_row(*s) for s in (
        (16, 8, 128, 1024, 64), (32, 8, 128, 1024, 256), (32, 8, 128, 8192, 16), (32, 8, 128, 32768, 1))]  # fmt: skip
    show("attention", [*prefill, *chunk, *decode])
    results.append("gemm", gemm, args, device)
    results.append("attention", [*prefill, *chunk, *decode], args, device)


if __name__ == "__main__":
    main()
