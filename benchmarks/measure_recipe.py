"""Run a recipe and its control with shuffled rewards, and write what came out to its expected.json.

    python benchmarks/measure_recipe.py grpo_arithmetic_tiny_cpu --seeds 0 1 2 --control 0

`bound` is a gain in held-out accuracy halfway between the worst seed's and the control's best: the recipe must pass it,
and the control must not.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from results import cpu

ROOT = Path(__file__).resolve().parent.parent


def run(recipe: str, seed: int, reward: str, extra: list[str], folder: Path) -> dict[str, object]:
    command = [sys.executable, "-m", "rlsync.cli", "train", f"recipe={recipe}", f"seed={seed}", f"run.dir={folder}"]
    command += ["telemetry=files_only", *(["reward=shuffled"] if reward == "shuffled" else []), *extra]
    started = time.time()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    summary = json.loads((folder / "summary.json").read_text())
    return {
        "seed": seed,
        "reward": reward,
        "reward_first": round(summary["reward_first"], 3),
        "reward_last": round(summary["reward_last"], 3),
        "accuracy_before": round(summary["accuracy_before"], 3),
        "accuracy_after": round(summary["accuracy_after"], 3),
        "tokens_compared": summary["tokens_compared"],
        "tokens_different": summary["tokens_different"],
        "seconds": round(time.time() - started),
    }


def gain(row: dict[str, object]) -> float:
    return float(str(row["accuracy_after"])) - float(str(row["accuracy_before"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--control", type=int, nargs="*", default=[0], help="seeds of runs with shuffled rewards")
    parser.add_argument("--device", default=cpu(), help="what the result says of the hardware")
    parser.add_argument("overrides", nargs="*", help="for every run")
    args = parser.parse_args()
    jobs = [(seed, "task") for seed in args.seeds] + [(seed, "shuffled") for seed in args.control]
    rows = []
    with tempfile.TemporaryDirectory(prefix="rlsync-recipe-") as scratch:
        for seed, reward in jobs:
            rows.append(run(args.recipe, seed, reward, args.overrides, Path(scratch, f"{reward}_{seed}")))
            print(json.dumps(rows[-1]), flush=True)
    trained = [gain(row) for row in rows if row["reward"] != "shuffled"]
    control = [gain(row) for row in rows if row["reward"] == "shuffled"]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    expected = {
        "status": "measured",
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit.stdout.strip(),
        "device": args.device,
        "bound": round((min(trained) + max(control)) / 2, 3) if control else None,
        "runs": rows,
    }
    (ROOT / "recipes" / args.recipe / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
