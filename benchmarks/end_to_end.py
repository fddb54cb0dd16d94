"""Rollouts of real model shapes: bits against the trainer's packed forward, and tokens/s against stock vLLM.

    python benchmarks/end_to_end.py --shapes qwen3_0_6b --record
    python benchmarks/end_to_end.py --shapes qwen3_1_7b --tp 1 2 --ranks 2 --record
    python benchmarks/end_to_end.py --requests 1024 --seats 256 --spread --speed-only   # a queue refills the seats

Weights are random, groups of 8 requests share a prompt (prefix caching is on), prompts are prefilled in chunks. Exact
rollouts are compared with rlsync's trainer under FSDP, stock ones with stock transformers; each engine and each trainer
rank runs in a process of its own. Exact rollouts have one digest, whatever the TP.
"""

from __future__ import annotations

import argparse
import cProfile
import fcntl
import hashlib
import io
import json
import os
import pstats
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import results
from engine_rows import GROUP, MODES, Load, Outcome, bit_rows, rollout_rows, startup_rows
from gpus import seeing
from shapes import build

from rlsync.cluster.env import apply_to_engine_host
from rlsync.cluster.run_plan import RunPlan, plan_run
from rlsync.config.cluster import ClusterConfig, Device, Placement
from rlsync.config.data import DataConfig
from rlsync.config.kernels import KernelMode, KernelsConfig
from rlsync.config.model import ComputeDtype, ModelConfig, ModelSource
from rlsync.config.rollout import RolloutConfig
from rlsync.config.run import TrainConfig
from rlsync.models.paths import ModelPaths
from rlsync.samples import Rollout, RolloutRequest

PROMPT = 384
CONTEXT = 1024
_START_LIMIT_S = 400


def plan_for(args: argparse.Namespace, requests: int) -> RunPlan:
    device, context = Device(args.device), args.context
    cuda = device is Device.cuda
    config = TrainConfig(
        cluster=ClusterConfig(device=device, placement=Placement.separate),
        model=ModelConfig(source=ModelSource.huggingface, path=str(args.model), dtype=ComputeDtype.bfloat16),
        kernels=KernelsConfig(mode=KernelMode.invariant if args.mode == "exact" else KernelMode.native),
        data=DataConfig(max_prompt_tokens=PROMPT // 4),
        rollout=RolloutConfig(
            tp=args.tp, max_tokens=context // 4, max_model_len=context, max_num_seqs=requests,
            max_num_batched_tokens=2048,
            kv_cache_mib=args.kv_mib if cuda else 64, gpu_memory_utilization=args.memory, block_size=16 if cuda else 32,
        ),
    )  # fmt: skip
    return plan_run(config, ModelPaths(policy=str(args.model)), trains=True)


def requests_for(count: int, lengths: tuple[int, int], vocab: int, seed: int) -> list[RolloutRequest]:
    """Make requests whose numbers of tokens are drawn between the two `lengths`."""
    low, high = lengths
    generator = random.Random(seed)
    made = []
    for index in range(count):
        if index % GROUP == 0:
            prompt = [generator.randrange(vocab) for _ in range(generator.randrange(16, PROMPT))]
        length = low if low == high else generator.randint(low, high)
        made.append(RolloutRequest(prompt=prompt, seed=generator.randrange(2**62), max_tokens=length, stop_ids=[]))
    return made


def timed_requests(count: int, args: argparse.Namespace, vocab: int) -> list[RolloutRequest]:
    shortest = args.tokens // 8 if args.spread else args.tokens
    return requests_for(count, (shortest, args.tokens), vocab, 2 + count)


def run_engine(args: argparse.Namespace) -> None:
    """One engine: times it, and leaves its rollouts in a file."""
    device = Device(args.device)
    settings = plan_for(args, args.seats or max(args.requests)).engine
    if args.mode == "stock_batch_invariant":
        os.environ["VLLM_BATCH_INVARIANT"] = "1"
    apply_to_engine_host(settings)
    import torch

    from rlsync.rollout.engine import RolloutEngine

    start_profile = cProfile.Profile()
    kernels = _compiled_kernels()
    started = time.perf_counter()
    make = partial(RolloutEngine, settings, kv_blocks=None if device is Device.cuda else 512)
    engine = start_profile.runcall(make) if args.profile else make()
    outcome = Outcome(start_s=time.perf_counter() - started, kernels_compiled=_compiled_kernels() > kernels)
    vocab = json.loads((args.model / "config.json").read_text())["vocab_size"]
    for count in args.requests:
        engine.generate(requests_for(count, (8, 8), vocab, 1))
    if args.turns:
        _take_turn(args.turns, args.among)
    kept: list[Rollout] = []
    waits = _noted_waits() if device is Device.cuda else []
    for count in args.requests:
        batch = timed_requests(count, args, vocab)
        waits.clear()
        started = time.perf_counter()
        rollouts = engine.generate(batch)
        seconds = time.perf_counter() - started
        outcome.tokens_per_s[str(count)] = sum(r.num_sampled for r in rollouts) / seconds
        outcome.waiting[str(count)] = sum(waits) / seconds
        kept += rollouts
    if args.mode == "exact" and args.orders:
        outcome.order_differs = _order_differs(engine, requests_for(args.orders, (4, 95), vocab, 3))
    outcome.digest = _digest(kept)
    torch.save({"outcome": asdict(outcome), "rollouts": kept}, args.save)
    Path(args.save).with_suffix(".json").write_text(json.dumps(asdict(outcome)))
    if args.profile:
        print(_profile(lambda: engine.generate(requests_for(args.profile, (64, 64), vocab, 4))))
        print("start-up\n" + _functions(start_profile, "cumtime", 60))
    engine.shutdown()


def _compiled_kernels() -> int:
    folder = Path(os.environ.get("TRITON_CACHE_DIR", "~/.triton/cache")).expanduser()
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def _noted_waits() -> list[float]:
    """From now on, how long each wait for an event of the GPU took."""
    import torch

    waits: list[float] = []
    wait = torch.cuda.Event.synchronize

    def noted(event: torch.cuda.Event) -> None:
        started = time.perf_counter()
        wait(event)
        waits.append(time.perf_counter() - started)

    torch.cuda.Event.synchronize = noted  # type: ignore[method-assign]
    return waits


def _digest(rollouts: list[Rollout]) -> str:
    digest = hashlib.sha256()
    for rollout in rollouts:
        digest.update(rollout.tokens.numpy().tobytes() + rollout.logprobs.numpy().tobytes())
    return digest.hexdigest()[:16]


def _profile(call: Callable[[], object]) -> str:
    """GPU time by kernel, and the host's by function."""
    from torch.profiler import ProfilerActivity, profile

    host = cProfile.Profile()
    host.runcall(call)
    started = time.perf_counter()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        call()
    wall = time.perf_counter() - started
    rows = sorted(profiler.key_averages(), key=lambda row: -row.device_time_total)
    busy = sum(row.device_time_total for row in rows) / 1e3
    lines = [f"wall {wall * 1e3:.0f} ms (with the profiler), kernels {busy:.0f} ms"]
    for row in rows[:22]:
        lines.append(f"{row.device_time_total / 1e3:8.1f} ms {row.count:6} x {row.device_time:8.1f} us  {row.key[:90]}")
    return "\n".join([*lines, _functions(host, "tottime", 40)])


def _functions(profiled: cProfile.Profile, order: str, count: int) -> str:
    report = io.StringIO()
    pstats.Stats(profiled, stream=report).sort_stats(order).print_stats(count)
    return report.getvalue()


def _order_differs(engine, batch: list[RolloutRequest]) -> int:  # type: ignore[no-untyped-def]
    import torch

    first = engine.generate(batch)
    order = list(range(len(batch)))
    random.Random(5).shuffle(order)
    second = engine.generate([batch[i] for i in order])
    return sum(
        not (torch.equal(first[i].tokens, b.tokens) and torch.equal(first[i].logprobs, b.logprobs))
        for i, b in zip(order, second, strict=True)
    )


def run_trainer(args: argparse.Namespace) -> None:
    """One rank: forward the saved rollouts through the trainer's policy and compare every sampled token."""
    import torch
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh

    from rlsync.parity.counts import merge
    from rlsync.parity.monitor import compare
    from rlsync.samples import TrainSample
    from rlsync.trainer.packing import plan_packs
    from rlsync.trainer.sharded import Sharded

    cuda = args.device == "cuda"
    store = dist.FileStore(f"{args.save}.store", args.ranks)
    dist.init_process_group(
        "cuda:nccl,cpu:gloo" if cuda else "gloo", store=store, rank=args.rank, world_size=args.ranks
    )
    saved = torch.load(args.save, weights_only=False)
    mesh = init_device_mesh(args.device, (args.ranks,))
    policy = Sharded(plan_for(args, 1).trainer, str(args.model), mesh, trainable=False)
    samples = [TrainSample(rollout=r) for r in saved["rollouts"]]
    budget = 8192 if args.mode == "exact" else 2048  # stock log-probs are [T, vocabulary]
    (packs,) = plan_packs(samples, ranks=args.ranks, minibatches=1, micro_batch_tokens=budget)
    parts = []
    with torch.no_grad():
        for cpu_pack in packs[args.rank]:
            pack = cpu_pack.to(policy.device)
            parts.append(compare(pack, policy.policy(pack, redraw=args.mode == "exact"), version=0))
    own = merge(parts)
    gathered = [own] * args.ranks
    dist.all_gather_object(gathered, own)
    dist.destroy_process_group()
    if args.rank:
        return
    outcome, counts = Outcome(**saved["outcome"]), merge(gathered)
    outcome.compared, outcome.different = counts.tokens_compared, counts.tokens_different
    outcome.draws_different, outcome.max_abs_diff = counts.draws_different, counts.max_abs_diff
    Path(args.save).with_suffix(".json").write_text(json.dumps(asdict(outcome)))


def measure(shape: str, args: argparse.Namespace, scratch: Path) -> dict[tuple[str, int], Outcome]:
    """By mode and TP; records the rows of this shape."""
    model = build(shape, (args.models or scratch) / shape, args.device, args.layers)
    turns = scratch / f"{shape}_turns"
    turns.mkdir()
    kinds = [(mode, tp) for mode in args.modes for tp in args.tp]

    def start(kind: tuple[str, int], role: str, rank: str = "") -> subprocess.Popen[str]:
        mode, tp = kind
        command = [sys.executable, __file__, "--role", role, "--rank", rank or "0", "--mode", mode, "--tp", str(tp)]
        command += ["--model", str(model), "--save", str(scratch / f"{shape}_{mode}_{tp}.pt")]
        for name in ("device", "tokens", "context", "memory", "kv_mib", "profile", "orders", "ranks", "seats"):
            command += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
        command += ["--requests", *map(str, args.requests), *(["--spread"] if args.spread else [])]
        if args.together:
            command += ["--turns", str(turns), "--among", str(len(kinds))]
        index = rank if args.ranks > 1 else str(kinds.index(kind) % args.gpus) if args.gpus > 1 else ""
        variables = seeing(int(index)) if index and args.device == "cuda" else os.environ
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=variables)

    engines = {kind: start(kind, "engine") for kind in kinds} if args.together else {}
    outcomes = {}
    for kind in kinds:
        name = f"{kind[0]}_tp{kind[1]}" if args.tp != [1] else kind[0]
        ended = _ended(f"{shape} {name} engine", [engines.get(kind) or start(kind, "engine")], args)
        if ended and not args.speed_only:
            ranks = [start(kind, "trainer", str(rank)) for rank in range(args.ranks)]
            ended = _ended(f"{shape} {name} trainer", ranks, args)
        save = scratch / f"{shape}_{kind[0]}_{kind[1]}.pt"
        if ended:
            outcomes[kind] = Outcome(**json.loads(save.with_suffix(".json").read_text()))
            show(shape, name, outcomes[kind])
        save.unlink(missing_ok=True)
    config = json.loads((model / "config.json").read_text())
    loads = {count: Load.of(timed_requests(count, args, config["vocab_size"]), config) for count in args.requests}
    device = results.device_name(args.device)
    results.append("rollouts", rollout_rows(shape, args, loads, outcomes), args, device)
    results.append("startup", startup_rows(shape, args, outcomes), args, device)
    results.append("bits", bit_rows(shape, args, outcomes), args, device)
    return outcomes


def _ended(title: str, processes: list[subprocess.Popen[str]], args: argparse.Namespace) -> bool:
    """Wait for a role's end; shows its profile or its failure."""
    ended = True
    for process in processes:
        said, _ = process.communicate()
        if process.returncode:
            print(f"{title} FAILED\n{said[-args.trace :]}", flush=True)
        elif args.profile and "wall " in said:
            print(f"{title} profile\n{said[said.rfind('wall ') :]}", flush=True)
        ended = ended and not process.returncode
    return ended


def _take_turn(turns: Path, among: int) -> None:
    """Wait until all engines have started, and then for the ones before; the turn ends with the process."""
    (turns / str(os.getpid())).touch()
    deadline = time.monotonic() + _START_LIMIT_S
    while len(list(turns.iterdir())) < among:
        if time.monotonic() > deadline:
            raise TimeoutError(f"only {len(list(turns.iterdir()))} of {among} engines started")
        time.sleep(0.2)
    fcntl.flock(os.open(turns, os.O_RDONLY), fcntl.LOCK_EX)


def show(shape: str, mode: str, o: Outcome) -> None:
    speeds = "  ".join(f"{n}: {speed:.0f} ({o.waiting.get(n, 0):.0%})" for n, speed in o.tokens_per_s.items())
    print(
        f"{shape:14} {mode:22} {o.different:7} of {o.compared} differ (max {o.max_abs_diff:.2g}), "
        f"draws {o.draws_different}, order {o.order_differs}; tokens/s (GPU waited for) {speeds}; "
        f"start {o.start_s:.0f} s; {o.digest}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["qwen3_0_6b"])
    parser.add_argument("--modes", nargs="+", default=list(MODES))
    parser.add_argument("--requests", nargs="+", type=int, default=[1, 64, 256])
    parser.add_argument("--tp", nargs="+", type=int, default=[1])
    parser.add_argument("--ranks", type=int, default=1, help="FSDP ranks of the trainer, a GPU each")
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--spread", action="store_true", help="lengths at random, from an eighth of --tokens on")
    parser.add_argument("--seats", type=int, default=0, help="requests in flight at most; 0: all that are sent")
    parser.add_argument("--context", type=int, default=CONTEXT)
    parser.add_argument("--orders", type=int, default=2000, help="random requests, sent in two orders")
    parser.add_argument("--profile", type=int, default=0, help="requests to profile after the timing")
    parser.add_argument("--memory", type=float, default=0.8, help="share of the GPU for vLLM")
    parser.add_argument("--kv-mib", type=int, default=0, help="size of the KV cache, in place of a share of the GPU")
    parser.add_argument(
        "--together", action="store_true", help="start all engines at once (with --kv-mib), time in turn"
    )
    parser.add_argument("--gpus", type=int, default=1, help="that engines of TP=1 are dealt out to")
    parser.add_argument("--speed-only", action="store_true", help="no trainer, no comparison")
    parser.add_argument("--layers", type=int, help="cut the depth")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--trace", type=int, default=3000, help="characters to show of a failure")
    parser.add_argument("--models", type=Path, help="folder to keep the models in")
    results.add_options(parser)
    parser.add_argument("--role", help=argparse.SUPPRESS)
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--mode", help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--save", help=argparse.SUPPRESS)
    parser.add_argument("--turns", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--among", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.role:
        (args.tp,) = args.tp
        return run_engine(args) if args.role == "engine" else run_trainer(args)
    with tempfile.TemporaryDirectory(prefix="rlsync-bench-") as scratch:
        for shape in args.shapes:
            measure(shape, args, Path(scratch))
    return None


if __name__ == "__main__":
    main()
