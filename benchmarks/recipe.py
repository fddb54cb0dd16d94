"""The default recipe, exact against stock kernels, in one run: start-up, stages of a step, tokens/s, memory, ratios.

    python benchmarks/recipe.py [--steps 8] [--record]

Stages are medians over the steps after the first. Native runs in bf16 and fp32, with the divergence that stock kernels
have only warned of; the faster of the two is the yardstick of the last column.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import results
from rich.console import Console
from rich.table import Table

RECIPE = "recipe=grpo_arithmetic_tiny_cpu"
STAGES = ("sync", "rollout", "reward", "train", "step")
NATIVE = ("kernels=native", "parity=warn", "parity.redraw=false")
VARIANTS = {
    "exact bf16": (),
    "native bf16": NATIVE,
    "native fp32": (*NATIVE, "model.dtype=float32"),
}


@dataclass
class Result:
    first_step_s: float
    """From the command to the start of the first step."""
    stages_s: dict[str, float]
    rollout_tokens_per_s: float
    train_tokens_per_s: float
    memory_gib: float
    """Largest resident memory of trainer ranks, engine and workers, summed."""
    tokens_different: int
    tokens_compared: int


def metrics_of(folder: Path) -> list[dict[str, float]]:
    """Read the metrics of each step of a run."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def median(rows: list[dict[str, float]], key: str) -> float:
    return statistics.median(row[key] for row in rows)


def total(rows: list[dict[str, float]], key: str) -> int:
    return int(sum(row[key] for row in rows))


def measure(name: str, steps: int, root: Path) -> Result:
    folder = root / name.replace(" ", "_")
    command = [sys.executable, "-m", "rlsync.cli", "train", RECIPE, f"trainer.steps={steps}", f"run.dir={folder}"]
    command += ["telemetry=files_only", "eval.problems=0", *VARIANTS[name]]
    started = time.time()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    rows = metrics_of(folder)
    later = rows[1:]
    ended = (folder / "metrics.jsonl").stat().st_mtime
    loop_s = sum(row["time/step"] for row in rows)
    return Result(
        first_step_s=ended - started - loop_s,
        stages_s={stage: median(later, f"time/{stage}") for stage in STAGES},
        rollout_tokens_per_s=median(later, "perf/rollout_tokens_per_s"),
        train_tokens_per_s=median(later, "perf/train_tokens_per_s"),
        memory_gib=rows[-1]["memory/trainer_gib"] + rows[-1]["memory/rollout_gib"],
        tokens_different=total(rows, "parity/tokens_different"),
        tokens_compared=total(rows, "parity/tokens_compared"),
    )


def table(measured: dict[str, Result]) -> Table:
    exact, natives = measured["exact bf16"], [measured["native bf16"], measured["native fp32"]]
    fastest = min(natives, key=lambda r: r.stages_s["step"])
    out = Table(title="exact against stock kernels")
    for column in ("", *measured, "exact / native bf16", "exact / faster native"):
        out.add_column(column, justify="right")

    def row(label: str, values: dict[str, float], of: tuple[float, float, float] | None) -> None:
        ratios = ("", "") if of is None else (f"{of[0] / of[1]:.2f}", f"{of[0] / of[2]:.2f}")
        out.add_row(label, *(f"{v:.3g}" for v in values.values()), *ratios)

    row("first step after, s", {n: r.first_step_s for n, r in measured.items()}, None)
    for stage in STAGES:
        values = {n: r.stages_s[stage] for n, r in measured.items()}
        three = (exact.stages_s[stage], natives[0].stages_s[stage], fastest.stages_s[stage])
        row(f"{stage}, s", values, three)
    row("rollout tokens/s", {n: r.rollout_tokens_per_s for n, r in measured.items()}, None)
    row("train tokens/s", {n: r.train_tokens_per_s for n, r in measured.items()}, None)
    memory = {n: r.memory_gib for n, r in measured.items()}
    row("peak memory, GiB", memory, (exact.memory_gib, natives[0].memory_gib, fastest.memory_gib))
    row("tokens that differ, %", {n: 100 * r.tokens_different / r.tokens_compared for n, r in measured.items()}, None)
    return out


def row(variant: str, result: Result) -> dict[str, object]:
    return {
        "variant": variant,
        "first_step_s": result.first_step_s,
        **{f"{stage}_s": result.stages_s[stage] for stage in STAGES},
        "rollout_tokens_per_s": result.rollout_tokens_per_s,
        "train_tokens_per_s": result.train_tokens_per_s,
        "memory_gib": result.memory_gib,
        "tokens_different": result.tokens_different,
        "tokens_compared": result.tokens_compared,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8)
    results.add_options(parser)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        measured = {name: measure(name, arguments.steps, Path(root)) for name in VARIANTS}
    Console(width=132).print(table(measured))
    rows = [row(name, result) for name, result in measured.items()]
    results.append("recipe_cpu", rows, arguments, results.cpu())


if __name__ == "__main__":
    main()
