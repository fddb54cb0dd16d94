"""Whole GRPO steps of real model shapes through the command line, exact beside native, as ratios in one run.

    python benchmarks/grpo_step.py --shape qwen3_0_6b --record
    python benchmarks/grpo_step.py --shape qwen3_1_7b --ranks 2 --tp 2 rollout.max_num_seqs=128
    python benchmarks/grpo_step.py --side-by-side --ranks 2 --tp 2 --steps 6
    python benchmarks/grpo_step.py --device cpu --shape tiny --steps 3 --prompts 4 --group 4 --tokens 16

Weights are random, so nearly all responses run to `--tokens`, and the reward, of a response's last digit, is a coin.
Figures are medians over the steps between the first, which compiles, and the last, which syncs twice and saves.
"""

from __future__ import annotations

import argparse
import os
import signal
import string
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import results
import torch
from gpus import visible_gpus
from recipe import NATIVE, median, metrics_of, total
from shapes import build, config_of

from rlsync.data.char_tokenizer import SPECIAL_TOKENS, build_char_tokenizer

RECIPES = {"cuda": "grpo_arithmetic_small_1gpu", "cpu": "grpo_arithmetic_tiny_cpu"}
MODES = {"exact": (), "native": NATIVE}
STAGES = ("step", "rollout", "train", "sync")
_PROMPT = 32
"""Tokens at most."""
_ROOM = 512
"""Number of tokens that a sequence may have beyond its response."""
_CHARACTERS = string.digits + string.ascii_letters + string.punctuation + " "


@dataclass
class Result:
    stages_s: dict[str, float]
    tokens_a_step: float
    """Sampled ones."""
    tokens_different: int
    tokens_compared: int


def make_model(args: argparse.Namespace, folder: Path) -> Path:
    """A model of the shape, with a tokenizer of as many tokens: characters, and fillers <0>, <1>, ..."""
    build(args.shape, folder, args.device, args.layers)
    torch.cuda.empty_cache()
    fillers = config_of(args.shape).vocab_size - len(SPECIAL_TOKENS) - len(_CHARACTERS)
    build_char_tokenizer(folder, _CHARACTERS, [f"<{index}>" for index in range(fillers)])
    return folder


def overrides(args: argparse.Namespace, model: Path) -> list[str]:
    """Overrides that both modes share."""
    values = {
        "recipe": RECIPES[args.device],
        "model": "huggingface",
        "model.path": model,
        "data.max_prompt_tokens": _PROMPT,
        "reward": "regex",
        "reward.pattern": "'[0-4]>$'",
        "algorithm.prompts_per_step": args.prompts,
        "algorithm.group_size": args.group,
        "trainer.steps": args.steps,
        "trainer.ranks": args.ranks,
        "trainer.micro_batch_tokens": 16384,
        "trainer.gradient_checkpointing": "true",
        "rollout.tp": args.tp,
        "rollout.max_tokens": args.tokens,
        "rollout.max_model_len": args.tokens + _ROOM,
        "rollout.max_num_seqs": 256,
        "rollout.kv_cache_mib": args.kv_mib,
        "eval.problems": 0,
        "telemetry": "files_only",
    }
    return [*(f"{key}={value}" for key, value in values.items()), *args.overrides]


def start(mode: str, common: list[str], scratch: Path, gpus: str | None) -> subprocess.Popen[bytes]:
    """A run; on some GPUs, or with those there are. What it says goes to a file: a full pipe would stop it."""
    command = [sys.executable, "-m", "rlsync.cli", "train", *common, f"run.dir={scratch / mode}", *MODES[mode]]
    variables = os.environ | ({} if gpus is None else {"CUDA_VISIBLE_DEVICES": gpus})
    with open(scratch / f"{mode}.log", "wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=variables)


def result_of(mode: str, run: subprocess.Popen[bytes], scratch: Path) -> Result:
    if run.wait():
        raise SystemExit(f"{mode} FAILED\n{(scratch / f'{mode}.log').read_text()[-4000:]}")
    rows = metrics_of(scratch / mode)
    kept = rows[1:-1]
    return Result(
        stages_s={stage: median(kept, f"time/{stage}") for stage in STAGES},
        tokens_a_step=median(kept, "response/tokens"),
        tokens_different=total(rows, "parity/tokens_different"),
        tokens_compared=total(rows, "parity/tokens_compared"),
    )


def show(mode: str, result: Result) -> None:
    stages = "  ".join(f"{stage} {seconds:7.3f} s" for stage, seconds in result.stages_s.items())
    different = f"{result.tokens_different} of {result.tokens_compared} tokens differ"
    print(f"{mode:14} {stages}  {result.tokens_a_step:.0f} tokens a step, {different}", flush=True)


def row(args: argparse.Namespace, measured: Mapping[str, Result]) -> dict[str, object]:
    names = ("shape", "ranks", "tp", "prompts", "group", "tokens", "steps")
    made: dict[str, object] = {name: getattr(args, name) for name in names}
    for stage in STAGES:
        made |= {f"{mode}_{stage}_s": measured[mode].stages_s[stage] if mode in measured else None for mode in MODES}
    for name in ("different", "compared"):
        made |= {
            f"{mode}_{name}": getattr(measured[mode], f"tokens_{name}") if mode in measured else None for mode in MODES
        }
    return made | {"tokens_per_step": next(iter(measured.values())).tokens_a_step}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="qwen3_0_6b")
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=list(MODES))
    parser.add_argument("--layers", type=int, help="cut the depth")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=512, help="of a response")
    parser.add_argument("--ranks", type=int, default=1, help="FSDP ranks of the trainer, a GPU each")
    parser.add_argument("--tp", type=int, default=1)
    parser.add_argument(
        "--side-by-side", action="store_true", help="modes at once, on GPUs of their own and shared processors"
    )
    parser.add_argument("--kv-mib", type=int, help="KV cache of a worker; default: 16384, on CPUs 64")
    parser.add_argument("--device", choices=tuple(RECIPES), default="cuda")
    results.add_options(parser)
    parser.add_argument("overrides", nargs="*", help="for both modes, key=value")
    args = parser.parse_args()
    if args.steps < 3:
        parser.error(f"--steps {args.steps}: want at least 3, for the first and the last are left out")
    each = max(args.ranks, args.tp)
    if args.side_by_side and len(visible_gpus()) < each * len(args.modes):
        parser.error(f"--side-by-side: want {each} GPUs for each mode, as --ranks and --tp say")
    args.kv_mib = args.kv_mib or (16384 if args.device == "cuda" else 64)
    measured: dict[str, Result] = {}
    with tempfile.TemporaryDirectory(prefix="rlsync-bench-") as scratch:
        common = overrides(args, make_model(args, Path(scratch, "model")))
        runs: dict[str, subprocess.Popen[bytes]] = {}
        try:
            if args.side_by_side:
                for index, mode in enumerate(args.modes):
                    own = visible_gpus()[index * each : (index + 1) * each]
                    runs[mode] = start(mode, common, Path(scratch), ",".join(own))
            for mode in args.modes:
                if mode not in runs:
                    runs[mode] = start(mode, common, Path(scratch), None)
                measured[mode] = result_of(mode, runs[mode], Path(scratch))
                show(mode, measured[mode])
        finally:
            for run in runs.values():
                run.send_signal(signal.SIGINT)  # of one that has ended, nothing
                run.wait()
    if len(measured) == 2:
        exact, native = measured["exact"].stages_s, measured["native"].stages_s
        ratios = {stage: exact[stage] / native[stage] for stage in STAGES}
        print("exact / native " + "  ".join(f"{stage} {ratio:.2f}" for stage, ratio in ratios.items()))
    results.append("grpo_step", [row(args, measured)], args, results.device_name(args.device))


if __name__ == "__main__":
    main()
