"""The run folder: config.yaml, metrics.jsonl, rollouts.jsonl, alarms.jsonl, checkpoints/, summary.json."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import torch

from rlsync.redact import without_secrets
from rlsync.samples import Rollout, Sample
from rlsync.telemetry.alarms import Fired
from rlsync.telemetry.json_text import to_json
from rlsync.telemetry.metrics import Metrics
from rlsync.telemetry.names import ALARMS, CHECKPOINTS, CONFIG, METRICS, ROLLOUTS, SUMMARY

_STEP = re.compile(rb'\{"step": (\d+)')
"""Beginning of every line of metrics.jsonl, rollouts.jsonl and alarms.jsonl."""


class RunFolder:
    """Appends to the files of a run folder; a line has been passed to the file system when its method returns.

    Args:
        path: The run folder, made if it does not exist.
        config_yaml: Text of config.yaml.
        done: Number of steps from which the run resumes. Lines of these steps stay, and later lines are removed.
    """

    def __init__(self, path: Path, config_yaml: str, done: int = 0) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        (path / CONFIG).write_text(config_yaml, encoding="utf-8")
        (path / SUMMARY).unlink(missing_ok=True)  # the run has more steps to do than before
        self._metrics: IO[str] = _open_after(path / METRICS, done)
        self._rollouts: IO[str] = _open_after(path / ROLLOUTS, done)
        self._alarms: IO[str] = _open_after(path / ALARMS, done)

    def checkpoint(self, step: int) -> Path:
        """Return the folder of a step's checkpoint."""
        return self.path / CHECKPOINTS / f"step_{step}"

    def remove(self, step: int) -> None:
        """Remove a step's checkpoint if it exists."""
        shutil.rmtree(self.checkpoint(step), ignore_errors=True)

    def write_metrics(self, metrics: Metrics) -> None:
        """Append the metrics of a step."""
        _append(self._metrics, metrics)

    def metrics(self) -> list[Metrics]:
        """Return the metrics of all steps so far; values that were not finite are NaN."""
        lines = (self.path / METRICS).read_text(encoding="utf-8").splitlines()
        rows = (json.loads(line).items() for line in lines)
        return [{key: math.nan if value is None else value for key, value in row} for row in rows]

    def write_alarm(self, fired: Fired) -> None:
        """Append an alarm."""
        _append(
            self._alarms,
            {
                "step": fired.step,
                "name": fired.name,
                "value": fired.value,
                "message": fired.message,
                "actions": [action.value for action in fired.actions],
            },
        )

    def write_rollouts(self, step: int, samples: list[Sample]) -> None:
        """Append one line for each sample.

        `response_tokens` has all tokens after the prompt, and `logprob_bits` the fp32 log-prob of each as 8 hex digits,
        or null if the token is part of an environment's message. `row_digest` is a digest, as 16 hex digits, of all
        logits of the rows from which the tokens were sampled; null if the engines make none. `turns` has the texts of
        the model's turns and the environment's messages, alternating. `advantage` is one number, or with a critic one
        for each sampled token.
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
                    "reward_parts": sample.score.parts or None,
                    "reward_error": without_secrets(sample.score.error),
                    "advantage": _advantage(sample),
                    "finish_reason": rollout.finish_reason.value,
                    "prompt_tokens": rollout.tokens[:begin].tolist(),
                    "response_tokens": rollout.tokens[begin:].tolist(),
                    "logprob_bits": [bit if own else None for bit, own in bits],
                    "row_digest": _row_digest(rollout),
                },
            )

    def write_trace(self, step: int, report: object) -> Path:
        """Write the report of a trace, a dataclass, to traces/step_N.json, and return the file."""
        return write_trace(self.path, f"step_{step}", report)

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write summary.json, which marks the run as complete."""
        (self.path / SUMMARY).write_text(to_json(summary, indent=2) + "\n", encoding="utf-8")

    def close(self) -> None:
        """Close the files."""
        self._metrics.close()
        self._rollouts.close()
        self._alarms.close()


def write_trace(run: Path, name: str, report: object) -> Path:
    """Write the report of a trace, a dataclass, to traces/<name>.json in a run folder, and return the file."""
    path = run / "traces" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(to_json(asdict(report), indent=1) + "\n", encoding="utf-8")  # type: ignore[call-overload]
    return path


def results(path: Path) -> Path | None:
    """Return a result of a run in the folder `path`: metrics.jsonl if it has a step, a checkpoint, or None."""
    metrics = path / METRICS
    if metrics.is_file() and metrics.stat().st_size:
        return metrics
    return next((path / CHECKPOINTS).glob("*"), None)


def ended(path: Path) -> bool:
    """Whether the run in the folder `path` has completed all its steps."""
    return (path / SUMMARY).exists()


def last_step(path: Path) -> int:
    """Return the last step in metrics.jsonl of the folder `path`; 0 if there is none."""
    metrics = path / METRICS
    lines = metrics.read_bytes().splitlines() if metrics.is_file() else []
    return max((int(step[1]) for line in lines if (step := _STEP.match(line))), default=0)


def hex_bits(values: torch.Tensor) -> list[str]:
    """Return the bits of fp32 values [T], 8 hex digits each."""
    return [f"{bits & 0xFFFFFFFF:08x}" for bits in values.view(torch.int32).tolist()]


def _row_digest(rollout: Rollout) -> str | None:
    """Return the sum of a rollout's digests, each times 2 * position + 1, modulo 2^64, as 16 hex digits."""
    if rollout.row_digests is None:
        return None
    positions = torch.arange(len(rollout.row_digests))
    return f"{int((rollout.row_digests * (2 * positions + 1)).sum()) & 0xFFFFFFFFFFFFFFFF:016x}"


def _advantage(sample: Sample) -> float | list[float] | None:
    """Return the advantage that all tokens share or, with a critic, a list with one for each sampled token."""
    if sample.advantage is None:
        return None
    advantages = sample.advantage[sample.rollout.sampled].tolist()
    return advantages if sample.value is not None else advantages[0]


def _open_after(path: Path, done: int) -> IO[str]:
    """Open a file to append after the lines of the first `done` steps; later or incomplete lines are removed."""
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
