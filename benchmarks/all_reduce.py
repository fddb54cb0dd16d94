"""The tree all-reduce on the GPUs of one host, against NCCL's sum and vLLM's custom all-reduce, in one run.

    python benchmarks/all_reduce.py [--ranks N] [--record]

Times are medians of CUDA-graph replays with several calls in a graph. Stock would reduce the bf16 tensor.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import results
import torch
import torch.distributed as dist
import triton

from rlsync.kernels.triton.symmetric import (
    LOW_LATENCY_SLOT_BYTES,
    PART_BYTES,
    SLOT_BYTES,
    gather_and_finish,
    open_reducer,
)

COLUMNS = 4096
ROWS = (1, 4, 16, 32, 64, 128, 256, 512, 1024, 2048, 8192)
"""8 KiB to 64 MiB of output in bf16."""
FORMS = ("chosen", "low_latency", "one_shot", "two_shot", "gather", "nccl_bf16", "nccl_fp32", "vllm_bf16")
CUSTOM_BYTES = 8 << 20
"""vLLM's custom all-reduce takes less."""


def seconds(
    call: Callable[[], object], calls: int, around: AbstractContextManager[Any] | None = None, repeats: int = 9
) -> float:
    """Median time of one call, `calls` of them in a graph; before each replay the ranks meet."""
    token = torch.zeros(1, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with around or contextlib.nullcontext():
        call()
        torch.cuda.synchronize()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            for _ in range(calls):
                call()
    times = []
    for _ in range(repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        dist.all_reduce(token)
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return sorted(times)[repeats // 2] / calls


def vllm_custom(ranks: int, rank: int) -> Any:
    """vLLM's custom all-reduce, or None."""
    group = dist.new_group(list(range(ranks)), backend="gloo")
    try:
        from vllm.distributed.device_communicators.custom_all_reduce import CustomAllreduce

        custom = CustomAllreduce(group, torch.device("cuda", rank), max_size=CUSTOM_BYTES)
    except Exception as error:
        print(f"no vLLM custom all-reduce: {error!r}", file=sys.stderr)
        return None
    return None if custom.disabled else custom


def measure(rows: int, group: dist.ProcessGroup, reducer: Any, custom: Any) -> dict[str, Any]:
    root = torch.randn(rows, COLUMNS, device="cuda")
    narrow, wide = torch.zeros_like(root, dtype=torch.bfloat16), torch.zeros_like(root)
    out = torch.empty_like(narrow)
    calls = 20 if rows <= 512 else 5
    us: dict[str, float] = {"chosen": seconds(lambda: reducer(root, None, torch.bfloat16), calls)}
    if root.nbytes <= LOW_LATENCY_SLOT_BYTES // (2 * group.size()):
        us["low_latency"] = seconds(lambda: reducer.low_latency(root, None, out), calls)
    if root.nbytes <= SLOT_BYTES // group.size():
        us["one_shot"] = seconds(lambda: reducer.one_shot(root, None, out), calls)
    if root.nbytes <= PART_BYTES:
        us["two_shot"] = seconds(lambda: reducer.two_shot(root, None, out), calls)
    us["gather"] = seconds(lambda: gather_and_finish(root, group, None, torch.bfloat16), calls)
    us["nccl_bf16"] = seconds(lambda: dist.all_reduce(narrow, group=group), calls)
    us["nccl_fp32"] = seconds(lambda: dist.all_reduce(wide, group=group), calls)
    if custom is not None and narrow.nbytes < CUSTOM_BYTES:
        us["vllm_bf16"] = seconds(lambda: custom.custom_all_reduce(narrow), calls, custom.capture())
    us = {name: 1e6 * time for name, time in us.items()}
    ratios = {f"{name}/chosen": us[name] / us["chosen"] for name in ("gather", "nccl_bf16", "nccl_fp32", "vllm_bf16")
              if name in us}  # fmt: skip
    return {"rows": rows, "bf16_bytes": narrow.nbytes, "fp32_bytes": root.nbytes, "us": us, "ratios": ratios}


def show(result: dict[str, Any]) -> None:
    print(result["device"], "x", result["ranks"], "torch", result["torch"], "triton", result["triton"])
    print("KiB bf16  KiB fp32 " + "".join(f"{name:>10}" for name in FORMS) + "  us; nccl_bf16 and vllm_bf16 / chosen")
    for row in result["rows"]:
        us, ratios = row["us"], row["ratios"]
        line = f"{row['bf16_bytes'] >> 10:8}  {row['fp32_bytes'] >> 10:8} "
        line += "".join(f"{us[name]:10.1f}" if name in us else f"{'-':>10}" for name in FORMS)
        print(line, f" {ratios['nccl_bf16/chosen']:6.2f} {ratios.get('vllm_bf16/chosen', float('nan')):6.2f}")


def run(rank: int, args: argparse.Namespace) -> None:
    ranks, port = args.ranks, args.port
    torch.cuda.set_device(rank)
    dist.init_process_group("nccl", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=ranks)
    group = dist.new_group(list(range(ranks)))
    reducer = open_reducer(group, torch.device("cuda", rank))
    if reducer is None:
        raise SystemExit("the GPUs share no memory")
    custom = vllm_custom(ranks, rank)
    result = {
        "device": torch.cuda.get_device_name(),
        "ranks": ranks,
        "torch": torch.__version__,
        "triton": triton.__version__,
        "rows": [measure(rows, group, reducer, custom) for rows in ROWS],
    }
    if rank == 0:
        show(result)
        rows = [
            {
                "ranks": ranks,
                "bf16_kib": row["bf16_bytes"] >> 10,
                **{f"{form}_us": row["us"].get(form) for form in FORMS},
            }
            for row in result["rows"]
        ]
        results.append("all_reduce", rows, args, result["device"])
    torch.cuda.synchronize()
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, default=torch.cuda.device_count())
    results.add_options(parser)
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rank is not None:
        return run(args.rank, args)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [sys.executable, __file__, *sys.argv[1:], "--ranks", str(args.ranks), "--port", str(port)]
    env = {"VLLM_SKIP_P2P_CHECK": "1", "PYTHONPATH": os.pathsep.join(sys.path)} | os.environ
    children = [subprocess.Popen([*command, "--rank", str(rank)], env=env) for rank in range(args.ranks)]
    try:
        codes = [child.wait(timeout=90) for child in children]
    finally:
        for child in children:
            child.kill()
    raise SystemExit(max(codes))


if __name__ == "__main__":
    main()
