"""The run folder: config.yaml, metrics.jsonl, rollouts.jsonl, checkpoints/, summary.json."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import IO, Any

import torch

from rlsync.redact import without_secrets
from rlsync.samples import Sample
from rlsync.telemetry.json_text import to_json
from rlsync.telemetry.metrics import Metrics

CHECKPOINTS, CONFIG = "checkpoints", "config.yaml"
"""Within a run's folder."""
_METRICS, _SUMMARY = "metrics.jsonl", "summary.json"
_STEP = re.compile(rb'\{"step": (\d+)')
"""How every line begins."""


class RunFolder:
    """Append-only writers; every line is complete on disk when its method returns.

    Args:
        done: steps of an earlier part of the run, whose lines stay; later ones go.
    """

    def __init__(self, path: Path, config_yaml: str, done: int = 0) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        (path / CONFIG).write_text(config_yaml, encoding="utf-8")
        (path / _SUMMARY).unlink(missing_ok=True)  # of an earlier part, which was shorter
        self._metrics: IO[str] = _open_after(path / _METRICS, done)
        self._rollouts: IO[str] = _open_after(path / "rollouts.jsonl", done)

    def checkpoint(self, step: int) -> Path:
        return self.path / CHECKPOINTS / f"step_{step}"

    def remove(self, step: int) -> None:
        """A checkpoint, if it is still there."""
        shutil.rmtree(self.checkpoint(step), ignore_errors=True)

    def write_metrics(self, metrics: Metrics) -> None:
        _append(self._metrics, metrics)

    def write_rollouts(self, step: int, samples: list[Sample]) -> None:
        """One line a sample.

        `response_tokens` are all tokens after the prompt; `logprob_bits` holds the fp32 log-prob of each as 8 hex
        digits, null where the environment wrote it. `turns` are the texts, the model's and the environment's in turn.
        `advantage` is one number, or with a critic one for each of the model's own tokens.
        """
        for index, sample in enumerate(samples):
            problem, episode, rollout = sample.problem, sample.episode, sample.rollout
            sampled, begin = rollout.sampled, rollout.prompt_length
            bits = zip(hex_bits(rollout.logprobs[begin:]), sampled[begin:].tolist(), strict=True)
            _append(
                self._rollouts,
                {
                    "step": step,
                    "sample": index,
                    "problem": problem.id,
                    "weight_version": int(rollout.weight_version[sampled][0]),
                    "seed": rollout.seed,
                    "prompt": problem.prompt,
                    "response": episode.scored,
                    "turns": episode.turns,
                    "answer": problem.answer,
                    "reward": sample.score.reward,
                    "reward_error": without_secrets(sample.score.error),
                    "advantage": _advantage(sample),
                    "finish_reason": rollout.finish_reason.value,
                    "prompt_tokens": rollout.tokens[:begin].tolist(),
                    "response_tokens": rollout.tokens[begin:].tolist(),
                    "logprob_bits": [bit if own else None for bit, own in bits],
                },
            )

    def write_summary(self, summary: dict[str, Any]) -> None:
        (self.path / _SUMMARY).write_text(to_json(summary, indent=2) + "\n", encoding="utf-8")

    def close(self) -> None:
        self._metrics.close()
        self._rollouts.close()


def results(path: Path) -> Path | None:
    """What the folder `path` holds of a run that came further than its start: a step's metrics, or a checkpoint."""
    metrics = path / _METRICS
    if metrics.is_file() and metrics.stat().st_size:
        return metrics
    return next((path / CHECKPOINTS).glob("*"), None)


def ended(path: Path) -> bool:
    """Whether the run in the folder `path` has done all its steps."""
    return (path / _SUMMARY).exists()


def last_step(path: Path) -> int:
    """The last step whose metrics the folder `path` holds; 0: none."""
    metrics = path / _METRICS
    lines = metrics.read_bytes().splitlines() if metrics.is_file() else []
    return max((int(step[1]) for line in lines if (step := _STEP.match(line))), default=0)


def hex_bits(values: torch.Tensor) -> list[str]:
    """fp32 [T] -> its bit patterns, 8 hex digits each."""
    return [f"{bits & 0xFFFFFFFF:08x}" for bits in values.view(torch.int32).tolist()]


def _advantage(sample: Sample) -> float | list[float] | None:
    """One number where all tokens of the response share it, or with a critic one for each sampled token."""
    if sample.advantage is None:
        return None
    advantages = sample.advantage[sample.rollout.sampled].tolist()
    return advantages if sample.value is not None else advantages[0]


def _open_after(path: Path, done: int) -> IO[str]:
    """To append to the lines of the first `done` steps; what follows them, perhaps torn, is cut off."""
    kept = 0
    if done and path.exists():
        with path.open("rb") as lines:
            for line in lines:
                step = _STEP.match(line)
                if step is None or int(step[1]) > done or not line.endswith(b"\n"):
                    break
                kept += len(line)
    file = path.open("a", encoding="utf-8")
    file.truncate(kept)
    return file


def _append(file: IO[str], row: dict[str, Any]) -> None:
    file.write(to_json(row) + "\n")
    file.flush()
