"""Run folders that look like those of a training run, written within milliseconds."""

import json
import math
import random
import re
import struct
from collections.abc import Mapping

from rlsync.report.chunks import decode

CONFIG = """seed: {seed}
run:
  name: {name}
model:
  source: huggingface
  path: {model}
  revision: main
  dtype: bfloat16
data:
  source: hub
  path: owner/sums
algorithm:
  advantage: grpo
  loss: ppo_clip
trainer:
  steps: {steps}
  ranks: 2
  lr: {lr}
rollout:
  engines: 1
  tp: 2
kernels:
  mode: invariant
cluster:
  device: cpu
"""
WORDS = [
    "so",
    "the sum",
    "of both",
    "sides is",
    "then we",
    "carry",
    "one",
    "and",
    "add",
    "what",
    "remains",
    "a total of",
]


def bits(value):
    """The 8 hex digits of an fp32 number."""
    return struct.pack(">f", value).hex()


def metrics(step, steps, rng):
    """A step's metrics, with about the keys of a real run."""
    share = step / steps
    reward = min(1.0, max(0.0, 0.2 + 0.7 * (1 - math.exp(-3 * share)) + rng.gauss(0, 0.03)))
    row = {
        "step": step, "reward/mean": reward, "reward/std": math.sqrt(reward * (1 - reward)), "reward/min": 0.0,
        "reward/max": 1.0, "reward/groups": 32, "reward/groups_without_signal": int(4 + 10 * share),
        "reward/errors": 0, "response/length_mean": 180 + 120 * share + rng.gauss(0, 9),
        "response/length_max": 512 + rng.randrange(90), "response/truncated_share": abs(rng.gauss(0.05, 0.01)),
        "response/tokens": 12000 + rng.randrange(900), "train/loss": rng.gauss(0, 0.01),
        "train/entropy": 0.9 - 0.5 * share + rng.gauss(0, 0.02), "train/kl_reference": 0.02 * share,
        "train/clip_fraction": abs(rng.gauss(0, 0.001)), "train/ratio_min": 1.0, "train/ratio_max": 1.0,
        "train/grad_norm": abs(rng.gauss(0.6, 0.15)), "train/learning_rate": 1e-6 * min(1, step / 20),
        "train/tis_truncated": 0.0, "parity/tokens_sampled": 12500, "parity/tokens_compared": 12500,
        "parity/tokens_left_out_stale": 0, "parity/tokens_different": 0, "parity/max_abs_diff": 0.0,
        "parity/max_ulp": 0, "parity/draws_compared": 12500, "parity/draws_different": 0,
        "parity/weights_digest_equal": 1, "memory/trainer_gib": 3.1, "memory/rollout_gib": 5.2 + share,
        "memory/trainer_gpu_gib": 0.0, "perf/rollout_tokens_per_s": 2000 + rng.gauss(0, 60),
        "perf/train_tokens_per_s": 5200 + rng.gauss(0, 200),
    }  # fmt: skip
    times = {"sync": 0.2, "rollout": 6 + rng.random(), "reward": 0.1, "scoring": 2.0, "train": 3 + rng.random() / 2}
    times |= {"eval": 4.0 if step % 50 == 0 else 0.0, "save": 0.0}
    row |= {f"time/{stage}": seconds for stage, seconds in times.items()}
    row["time/step"] = sum(times.values()) - times["scoring"] + 0.1
    if step == 1:
        row["eval/accuracy_initial"] = 0.21
    if step % 50 == 0 or step == steps:
        row["eval/accuracy"] = 0.2 + 0.6 * share
    return row


def rollout(step, sample, rng, *, tokens=40, **changes):
    """A line of rollouts.jsonl whose token ids are the bytes of its text."""
    words = " ".join(rng.choices(WORDS, k=max(1, tokens // 5)))
    response = (words + f" {rng.randrange(1000)}").ljust(tokens, ".")[:tokens]
    prompt = f"What is {step % 97} + {sample // 8} + {rng.randrange(9)}?"
    reward = float(rng.random() < 0.6)
    pool = _POOL[rng.randrange(200) :]
    row = {
        "step": step, "sample": sample, "problem": f"{step}-{sample // 8}", "weight_version": step - 1,
        "seed": rng.getrandbits(62), "prompt": prompt, "response": response, "turns": [response], "answer": "42",
        "reward": reward, "reward_error": None, "advantage": reward - 0.6,
        "finish_reason": "length" if rng.random() < 0.1 else "stop", "prompt_tokens": list(prompt.encode()),
        "response_tokens": list(response.encode()), "logprob_bits": (pool * (1 + tokens // len(pool)))[:tokens],
    }  # fmt: skip
    return row | changes


_RNG = random.Random(0)
_POOL = [bits(-abs(_RNG.gauss(0, 0.7)) * (_RNG.random() < 0.7)) for _ in range(4000)]


def make_run(folder, *, steps=6, samples=8, tokens=40, seed=0, name="sums", lr="1e-6", planned=None, complete=True):
    """Write a run folder, and return it."""
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    text = CONFIG.format(seed=seed, name=name, model=folder / "model", steps=planned or steps, lr=lr)
    (folder / "config.yaml").write_text(text)
    pool = [json.dumps(rollout(0, sample, rng, tokens=tokens)) for sample in range(min(3000, steps * samples))]
    tails = [line[line.index('"problem"') :] for line in pool]
    with (folder / "metrics.jsonl").open("w") as rows, (folder / "rollouts.jsonl").open("w") as rollouts:
        for step in range(1, steps + 1):
            rows.write(json.dumps(metrics(step, steps, rng)) + "\n")
            for sample in range(samples):
                tail = tails[(step * samples + sample) % len(tails)]
                rollouts.write(f'{{"step": {step}, "sample": {sample}, {tail}\n')
    if complete:
        (folder / "summary.json").write_text(json.dumps({"steps": steps, "seconds": 10.6 * steps}))
    return folder


def append(file, *rows):
    """Append rows to a file of JSON lines."""
    with file.open("a") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in rows)


class Chunks(Mapping):
    """The chunks of a report's text, which are decoded when they are asked for."""

    def __init__(self, page):
        self.encoded = dict(re.findall(r'<script type="application/octet-stream" id="([\w-]+)">([^<]*)</script>', page))

    def __getitem__(self, name):
        return json.loads(decode(self.encoded[name]))

    def __iter__(self):
        return iter(self.encoded)

    def __len__(self):
        return len(self.encoded)
