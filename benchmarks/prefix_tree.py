"""A group of rollouts as a prefix tree against the same rollouts apart: one forward and backward pass, and its memory.

    python benchmarks/prefix_tree.py --device cpu --record

Both kinds hold the whole group in one pack. They take turns, each time in a process of their own, and medians are
compared. Memory is what the pass takes beyond model and pack: the growth of resident memory on a CPU, of PyTorch's own
count on a GPU. fp32 on a CPU, bf16 on a GPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import results
import torch
from transformers import AutoModelForCausalLM, Qwen3Config

from rlsync.config.kernels import KernelMode
from rlsync.models.policy import Policy
from rlsync.pack import Pack
from rlsync.samples import FinishReason, Rollout, TrainSample
from rlsync.trainer.packing import pack_samples

KINDS = ("tree", "apart")
_VOCABULARY = 2048


def build(args: argparse.Namespace) -> Policy:
    dtype = torch.float32 if args.device == "cpu" else torch.bfloat16
    config = Qwen3Config(
        vocab_size=_VOCABULARY, hidden_size=args.hidden, num_hidden_layers=args.layers,
        num_attention_heads=args.hidden // 64, num_key_value_heads=max(1, args.hidden // 128), head_dim=64,
        intermediate_size=3 * args.hidden, tie_word_embeddings=True, architectures=["Qwen3ForCausalLM"],
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype).to(args.device)
    if args.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return Policy(model, mode=KernelMode.invariant, leaves=8, dtype=dtype, temperature=1.0).to(args.device).train()


def group(rollouts: int, prompt: int, response: int, *, tree: bool) -> Pack:
    generator = torch.Generator().manual_seed(0)
    begin = torch.randint(0, _VOCABULARY, (prompt,), generator=generator)
    sampled = torch.arange(prompt + response) >= prompt
    samples = [
        TrainSample(
            rollout=Rollout(
                tokens=torch.cat((begin, torch.randint(0, _VOCABULARY, (response,), generator=generator))),
                sampled=sampled,
                logprobs=torch.zeros(prompt + response),
                weight_version=torch.where(sampled, 0, -1).int(),
                seed=index,
                finish_reason=FinishReason.length,
            ),
            advantage=torch.ones(prompt + response),
        )
        for index in range(rollouts)
    ]
    return pack_samples(samples, list(range(rollouts)), share_prefixes=tree)


def measure(args: argparse.Namespace) -> None:
    """Measure one kind of pack in this process and write the result to `args.save`."""
    policy, tree, device = build(args), args.kind == "tree", torch.device(args.device)

    def run(pack: Pack) -> torch.Tensor:
        policy.zero_grad(set_to_none=True)
        output = policy(pack)
        output.logprobs.mean().backward()
        return output.logprobs.detach().cpu()  # waits for the GPU

    run(group(2, 64, 16, tree=tree).to(device))  # compiles
    pack = group(args.rollouts, args.prompt, args.response, tree=tree).to(device)
    before = start_memory(device)
    logprobs = run(pack)
    memory = (peak_memory(device) - before) / 2**20
    started = time.perf_counter()
    run(pack)
    row = {"rows": pack.tokens.numel(), "seconds": time.perf_counter() - started, "memory_mib": memory}
    torch.save((row, logprobs), args.save)


def start_memory(device: torch.device) -> int:
    """Bytes in use now, from where the peak is counted."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")  # the peak of resident memory is counted anew
    return _status("VmRSS")


def peak_memory(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else _status("VmHWM")


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rollouts", type=int, default=16)
    parser.add_argument("--prompt", type=int, default=1024)
    parser.add_argument("--response", type=int, default=64)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--checkpointing", action="store_true")
    results.add_options(parser)
    parser.add_argument("--kind", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--save", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.kind:
        return measure(args)
    runs: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    logprobs = {}
    with tempfile.TemporaryDirectory(prefix="rlsync-bench-") as scratch:
        for kind in KINDS * args.rounds:
            save = Path(scratch, f"{kind}.pt")
            subprocess.run([sys.executable, __file__, *sys.argv[1:], "--kind", kind, "--save", str(save)], check=True)
            run, logprobs[kind] = torch.load(save)
            runs[kind].append(run)
    rows = {kind: {key: statistics.median(run[key] for run in runs[kind]) for key in runs[kind][0]} for kind in KINDS}
    ratios = {key: rows["tree"][key] / rows["apart"][key] for key in rows["tree"]}
    equal = torch.equal(*logprobs.values())
    print(json.dumps({**rows, "ratios": ratios, "logprobs_equal": equal}, indent=1))
    shape = ("rollouts", "prompt", "response", "hidden", "layers", "rounds", "checkpointing")
    row: dict[str, object] = {name: getattr(args, name) for name in shape}
    for name, key in (("rows", "rows"), ("s", "seconds"), ("mib", "memory_mib")):
        row |= {f"{kind}_{name}": rows[kind][key] for kind in KINDS}
    results.append("prefix_tree", [row | {"logprobs_equal": equal}], args, results.device_name(args.device))
    return None


if __name__ == "__main__":
    main()
