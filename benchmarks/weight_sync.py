"""Time of a weight sync from FSDP ranks to the TP workers of one engine on the same GPUs, without Ray.

    python benchmarks/weight_sync.py --shape qwen3_8b --ranks 2 --record

The limit beside it is a copy of the rows that a GPU lacks from another one, over the link between them.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import results
import torch
import torch.distributed as dist
from gpus import seeing
from shapes import build
from torch.distributed.device_mesh import init_device_mesh

from rlsync.cluster.env import apply_to_engine_host
from rlsync.cluster.run_plan import RunPlan, plan_run
from rlsync.config.cluster import ClusterConfig, Device, Placement
from rlsync.config.data import DataConfig
from rlsync.config.model import ComputeDtype, ModelConfig, ModelSource
from rlsync.config.parity import Fault
from rlsync.config.rollout import RolloutConfig
from rlsync.config.run import TrainConfig
from rlsync.models.paths import ModelPaths
from rlsync.weight_sync.digest import combine, differing
from rlsync.weight_sync.plan import BUCKET_BYTES, GPU_BUCKET_BYTES, make_plan
from rlsync.weight_sync.sender import WeightSender
from rlsync.weight_sync.transport import Seat

_TURNS = 4
"""The first one opens connections and is left out."""


def plan_for(args: argparse.Namespace) -> RunPlan:
    device = Device(args.device)
    config = TrainConfig(
        cluster=ClusterConfig(device=device, placement=Placement.separate),
        model=ModelConfig(source=ModelSource.huggingface, path=str(args.model), dtype=ComputeDtype.bfloat16),
        data=DataConfig(max_prompt_tokens=16),
        rollout=RolloutConfig(
            tp=args.ranks, max_tokens=16, max_model_len=64, max_num_seqs=8, max_num_batched_tokens=64, kv_cache_mib=64,
            cuda_graphs=False, block_size=16 if device is Device.cuda else 32,
        ),
    )  # fmt: skip
    return plan_run(config, ModelPaths(policy=str(args.model)), trains=True)


def timed(call: Callable[[], object]) -> list[float]:
    seconds = []
    for _ in range(_TURNS):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return seconds[1:]


def run_trainer(args: argparse.Namespace) -> None:
    from rlsync.trainer.sharded import Sharded

    cuda = args.device == "cuda"
    store = dist.FileStore(str(args.folder / "trainers"), args.ranks)
    backend = "cuda:nccl,cpu:gloo" if cuda else "gloo"
    dist.init_process_group(backend, store=store, rank=args.rank, world_size=args.ranks)
    mesh = init_device_mesh(args.device, (args.ranks,))
    policy = Sharded(plan_for(args).trainer, str(args.model), mesh, trainable=False)
    specs = policy.specs()
    sender = WeightSender(policy)
    address = sender.open_channel("127.0.0.1", 1)
    leave(args.folder / f"rank{args.rank}", (specs, address))
    sender.connect(make_plan(specs, args.ranks, GPU_BUCKET_BYTES if cuda else BUCKET_BYTES))
    digests = [sender.send() for _ in range(_TURNS)][-1]
    leave(args.folder / f"digests{args.rank}", digests)
    if cuda:
        link = link_seconds(sum(torch.Size(s.shape).numel() for s in specs) * 2 // args.ranks, args)
        leave(args.folder / f"link{args.rank}", link)
    dist.barrier()
    dist.destroy_process_group()


def link_seconds(size: int, args: argparse.Namespace) -> float:
    """Best of some all-gathers of `size` bytes a rank in one piece."""
    own = torch.empty(size, dtype=torch.uint8, device="cuda")
    everyone = torch.empty(size * args.ranks, dtype=torch.uint8, device="cuda")

    def gather() -> None:
        dist.all_gather_into_tensor(everyone, own)
        torch.cuda.synchronize()

    return min(timed(gather))


def run_engine(args: argparse.Namespace) -> dict[str, object]:
    """The engine lives in the main process; returns the figures."""
    from rlsync.rollout.engine import RolloutEngine

    engine = RolloutEngine(plan_for(args).engine, kv_blocks=None if args.device == "cuda" else 64)
    ranks = [found(args.folder / f"rank{rank}") for rank in range(args.ranks)]
    specs = ranks[0][0]
    plan = make_plan(specs, args.ranks, GPU_BUCKET_BYTES if args.device == "cuda" else BUCKET_BYTES)
    engine.connect(plan, [Seat(address=address, rank=1, world=2) for _, address in ranks])
    received = []
    seconds = timed(lambda: received.append(engine.receive_weights(0, Fault.none)))
    sent = combine(part for rank in range(args.ranks) for part in found(args.folder / f"digests{rank}"))
    size = sum(torch.Size(spec.shape).numel() for spec in specs) * 2
    result = {
        "shape": args.shape,
        "ranks": args.ranks,
        "gib": size / 2**30,
        "sync_s": statistics.median(seconds),
        "all_gather_s": max(found(args.folder / f"link{r}") for r in range(args.ranks))
        if args.device == "cuda"
        else None,
        "tensors_different": len(differing(sent, combine(received[-1]))),
    }
    engine.shutdown()
    return result


def leave(path: Path, value: object) -> None:
    path.with_suffix(".part").write_bytes(pickle.dumps(value))
    path.with_suffix(".part").rename(path)


def found(path: Path, limit_s: float = 300.0) -> object:
    deadline = time.monotonic() + limit_s
    while not path.is_file():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {path.name} after {limit_s:.0f} s: a trainer rank has failed")
        time.sleep(0.1)
    return pickle.loads(path.read_bytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="qwen3_8b")
    parser.add_argument("--ranks", type=int, default=2, help="FSDP ranks, and TP workers")
    parser.add_argument("--layers", type=int, help="cut the depth")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--models", type=Path, help="folder to keep the model in")
    results.add_options(parser)
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rank is not None:
        return run_trainer(args)
    with tempfile.TemporaryDirectory(prefix="rlsync-sync-") as scratch:
        args.folder = Path(scratch)
        args.model = build(args.shape, (args.models or args.folder) / args.shape, args.device, args.layers)
        command = [sys.executable, __file__, "--folder", scratch, "--model", str(args.model), "--device", args.device]
        command += ["--ranks", str(args.ranks)]
        on_gpus = args.device == "cuda"
        trainers = [
            subprocess.Popen([*command, "--rank", str(rank)], env=seeing(rank) if on_gpus else os.environ)
            for rank in range(args.ranks)
        ]
        try:
            apply_to_engine_host(plan_for(args).engine)
            result = run_engine(args)
        finally:
            for trainer in trainers:
                trainer.kill()
                trainer.wait()
    print(json.dumps(result))
    results.append("weight_sync", [result], args, results.device_name(args.device))
    return None


if __name__ == "__main__":
    main()
