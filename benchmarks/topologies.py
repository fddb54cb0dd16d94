"""The first step of one run at many topologies: tokens and log-probs must be the same, bit for bit.

    python benchmarks/topologies.py --record

A pairwise cover of TP 1, 2, 4, 8, FSDP ranks 1, 2, 4 and engines 1, 2 (TP=8 with one engine), on CPU ranks. Only the
first step: after an update the weights know the order in which ranks summed gradients. The control has another seed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import results

TOPOLOGIES = (
    (1, 1, 1), (1, 2, 2), (1, 4, 1), (2, 1, 2), (2, 2, 1), (2, 4, 2),
    (4, 1, 1), (4, 2, 2), (4, 4, 1), (8, 1, 1), (8, 2, 1), (8, 4, 1),
)  # fmt: skip
"""TP, FSDP ranks, engines."""
SMALL = (
    "recipe=grpo_arithmetic_tiny_cpu", "trainer.steps=1", "eval.problems=0", "telemetry=files_only",
    "model.tiny.hidden_size=128", "model.tiny.heads=8", "model.tiny.kv_heads=4", "model.tiny.head_dim=16",
    "model.tiny.intermediate_size=256", "model.tiny.warm_start_steps=100", "rollout.kv_cache_mib=64",
)  # fmt: skip


@dataclass(slots=True, kw_only=True)
class Row:
    tp: int
    ranks: int
    engines: int
    seed: int
    samples: int
    compared: int
    different: int
    digest: str
    """Digest of the tokens and the bits of the log-probs of all samples."""
    memory_gib: float
    """Largest resident memory of trainer ranks and rollout workers, summed."""
    seconds: float


def run(tp: int, ranks: int, engines: int, seed: int, folder: Path, cache: Path) -> Row:
    command = [sys.executable, "-m", "rlsync.cli", "train", *SMALL, f"run.dir={folder}", f"model.cache_dir={cache}"]
    command += [f"rollout.tp={tp}", f"trainer.ranks={ranks}", f"rollout.engines={engines}", f"seed={seed}"]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"TP={tp}, {ranks} ranks, {engines} engines failed:\n{done.stdout}{done.stderr}")
    (metrics,) = (json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines())
    rollouts = [json.loads(line) for line in (folder / "rollouts.jsonl").read_text().splitlines()]
    kept = [(r["prompt_tokens"], r["response_tokens"], r["logprob_bits"]) for r in rollouts]
    return Row(
        tp=tp, ranks=ranks, engines=engines, seed=seed, samples=len(rollouts),
        compared=int(metrics["parity/tokens_compared"]), different=int(metrics["parity/tokens_different"]),
        digest=hashlib.sha256(json.dumps(kept).encode()).hexdigest()[:16],
        memory_gib=round(metrics["memory/trainer_gib"] + metrics["memory/rollout_gib"], 2),
        seconds=round(time.perf_counter() - started),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    results.add_options(parser)
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="rlsync-topologies-") as scratch:
        for number, (tp, ranks, engines) in enumerate([*TOPOLOGIES, (1, 1, 1)]):
            seed = int(number == len(TOPOLOGIES))
            rows.append(run(tp, ranks, engines, seed, Path(scratch, f"run{number}"), Path(scratch, "cache")))
            print(json.dumps(asdict(rows[-1])), flush=True)
    *same, control = rows
    equal = len({row.digest for row in same}) == 1 and not any(row.different for row in same)
    print(f"{len(same)} topologies: {'equal' if equal else 'DIFFERENT'}; control {control.digest != same[0].digest}")
    results.append("topologies", [asdict(row) for row in rows], args, results.cpu())
    if not equal or control.digest == same[0].digest:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
