"""A training step on one GPU: rlsync's exact trainer against stock Hugging Face under the same FSDP2, and its memory.

    python benchmarks/trainer.py --shapes qwen3_0_6b --record

A step is forward, backward and AdamW on `--tokens` tokens in sequences of `--length`, bf16 over fp32 masters. Stock
runs PyTorch's flash attention (SDPA) on a rectangular batch and makes log-probs over chunks of rows. `forward_s` is
what others pay for old log-probs and rlsync does not.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import results
import torch
import torch.distributed as dist
from shapes import build
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM

from rlsync.cluster.run_plan import plan_run
from rlsync.config.cluster import ClusterConfig, Device
from rlsync.config.data import DataConfig
from rlsync.config.model import ModelConfig, ModelSource
from rlsync.config.parity import ParityConfig
from rlsync.config.rollout import RolloutConfig
from rlsync.config.run import TrainConfig
from rlsync.config.trainer import TrainerConfig
from rlsync.models.paths import ModelPaths
from rlsync.samples import FinishReason, Rollout, TrainSample
from rlsync.trainer.packing import minibatch_size, plan_packs
from rlsync.trainer.sharded import Sharded
from rlsync.trainer.step import StepRunner

_CHUNK = 1024
"""Rows of the stock head's fp32 logits."""


@dataclass
class Outcome:
    step_s: float
    forward_s: float
    """Without gradients: what old log-probs would cost."""
    peak_gib: float


def exact(model: Path, tokens: int, length: int, checkpointing: bool, redraw: bool) -> Outcome:
    config = TrainConfig(
        cluster=ClusterConfig(device=Device.cuda),
        model=ModelConfig(source=ModelSource.huggingface, path=str(model)),
        data=DataConfig(max_prompt_tokens=8),
        rollout=RolloutConfig(max_tokens=length - 8, max_model_len=length),
        trainer=TrainerConfig(micro_batch_tokens=tokens, gradient_checkpointing=checkpointing),
        parity=ParityConfig(redraw=redraw),
    )
    settings = plan_run(config, ModelPaths(policy=str(model)), trains=True).trainer
    policy = Sharded(settings, str(model), init_device_mesh("cuda", (1,)), trainable=True)
    runner = StepRunner(settings, policy, None)
    generator = torch.Generator().manual_seed(0)
    sampled = torch.arange(length) >= length // 4
    samples = [
        TrainSample(
            rollout=Rollout(
                tokens=torch.randint(0, policy.hf_config.vocab_size, (length,), generator=generator),
                sampled=sampled,
                logprobs=torch.full((length,), -10.0) * sampled,
                weight_version=torch.where(sampled, 0, -1).int(),
                seed=index,
                finish_reason=FinishReason.length,
            ),
            advantage=torch.ones(length),
        )
        for index in range(tokens // length)
    ]
    plan = plan_packs(samples, ranks=1, minibatches=1, micro_batch_tokens=tokens)
    packs = plan[0][0]
    size = minibatch_size(plan[0])
    on_gpu = [pack.to(policy.device) for pack in packs]

    def forward() -> None:
        with torch.no_grad():
            for pack in on_gpu:
                policy.policy(pack)

    return measure(lambda: runner.run([packs], [size], 0), forward)


def stock(model: Path, tokens: int, length: int, checkpointing: bool) -> Outcome:
    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="sdpa").train()
    if checkpointing:
        policy.gradient_checkpointing_enable({"use_reentrant": False})
    precision = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    mesh = init_device_mesh("cuda", (1,))
    for layer in policy.base_model.layers:
        fully_shard(layer, mesh=mesh, mp_policy=precision)
    fully_shard(policy, mesh=mesh, mp_policy=precision)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-6)
    vocab = policy.config.vocab_size
    ids = torch.randint(0, vocab, (tokens // length, length), device="cuda")
    targets = ids.roll(-1, 1).flatten()

    def chunk_logprobs(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return torch.log_softmax(logits.float(), -1).gather(-1, wanted[:, None])[:, 0]

    def logprobs() -> torch.Tensor:
        logits = policy(input_ids=ids, use_cache=False).logits.view(-1, vocab)
        parts = [
            checkpoint(chunk_logprobs, logits[i : i + _CHUNK], targets[i : i + _CHUNK], use_reentrant=False)
            for i in range(0, len(targets), _CHUNK)
        ]
        return torch.cat(parts)

    def step() -> None:
        (-logprobs().mean()).backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def forward() -> None:
        with torch.no_grad():
            logprobs()

    return measure(step, forward)


def measure(step, forward, repeats: int = 5) -> Outcome:  # type: ignore[no-untyped-def]
    times: dict[str, list[float]] = {"step": [], "forward": []}
    for name, call in (("step", step), ("forward", forward)):
        for _ in range(2 + repeats):
            torch.cuda.synchronize()
            started = time.perf_counter()
            call()
            torch.cuda.synchronize()
            times[name].append(time.perf_counter() - started)
        if name == "step":
            peak = torch.cuda.max_memory_allocated() / 2**30
    return Outcome(statistics.median(times["step"][2:]), statistics.median(times["forward"][2:]), peak)


def run_one(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        dist.init_process_group("cpu:gloo,cuda:nccl", store=dist.FileStore(f"{scratch}/s", 1), rank=0, world_size=1)
        common = (args.model, args.tokens, args.length, args.checkpointing)
        outcome = stock(*common) if args.kind == "stock" else exact(*common, redraw=args.kind == "exact_redraw")
        dist.destroy_process_group()
    args.save.write_text(json.dumps(asdict(outcome)))


def rows_of(
    shape: str, args: argparse.Namespace, measured: Mapping[str, Mapping[str, float]]
) -> list[dict[str, object]]:
    """One row for each exact kind, beside stock."""
    rows: list[dict[str, object]] = []
    for kind in ("exact", "exact_redraw"):
        if kind in measured:
            row: dict[str, object] = {"shape": shape, "tokens": args.tokens, "length": args.length}
            row |= {"layers": args.layers, "checkpointing": args.checkpointing, "redraw": kind == "exact_redraw"}
            for name in ("step_s", "forward_s", "peak_gib"):
                row |= {f"exact_{name}": measured[kind][name], f"stock_{name}": measured.get("stock", {}).get(name)}
            rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["qwen3_0_6b"])
    parser.add_argument("--kinds", nargs="+", default=["exact", "exact_redraw", "stock"])
    parser.add_argument("--tokens", type=int, default=16384)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--checkpointing", action="store_true")
    results.add_options(parser)
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--save", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.kind:
        return run_one(args)
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="rlsync-bench-") as scratch:
        for shape in args.shapes:
            model = build(shape, Path(scratch, shape), "cuda", args.layers)
            torch.cuda.empty_cache()
            measured: dict[str, dict[str, float]] = {}
            for kind in args.kinds:
                save = Path(scratch, f"{shape}_{kind}.json")
                command = [sys.executable, __file__, "--kind", kind, "--model", str(model), "--save", str(save)]
                command += ["--tokens", str(args.tokens), "--length", str(args.length)]
                command += ["--checkpointing"] if args.checkpointing else []
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    print(f"{shape} {kind} FAILED\n{(done.stdout + done.stderr)[-3000:]}", flush=True)
                    continue
                measured[kind] = json.loads(save.read_text())
                values = "  ".join(f"{key} {value:.3f}" for key, value in measured[kind].items())
                print(f"{shape:14} {kind:14} {args.tokens} tokens of {args.length}: {values}", flush=True)
            rows += rows_of(shape, args, measured)
    results.append("trainer", rows, args, results.device_name("cuda"))
    return None


if __name__ == "__main__":
    main()
