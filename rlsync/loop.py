"""The training loop: one verb a line. Knows protocols only, neither Ray nor vLLM.

A step: sync weights -> rollouts -> rewards -> advantages -> train (compares every token) -> judge -> log -> save.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import torch

from rlsync.algorithms.advantages import group_advantages, groups_without_signal
from rlsync.config.parity import Fault, OnDivergence
from rlsync.config.run import TrainConfig
from rlsync.data.prompts import PromptStream
from rlsync.data.text import TextCodec
from rlsync.errors import DivergenceError
from rlsync.parity.monitor import digest_message, judge
from rlsync.rewards.scorer import Scorer, shuffle_rewards
from rlsync.telemetry import metrics as m
from rlsync.telemetry.console import ConsoleReporter
from rlsync.telemetry.run_folder import RunFolder
from rlsync.telemetry.wandb_sink import WandbSink
from rlsync.types import Problem, Rollout, RolloutRequest, Score, StepStats, TrainSample


class Trainer(Protocol):
    def train(self, samples: list[TrainSample]) -> list[StepStats]: ...
    def save(self, folder: str) -> None: ...
    def peak_memory_gib(self) -> float: ...


class Rollouts(Protocol):
    def generate(self, requests: list[RolloutRequest]) -> list[Rollout]: ...
    def sync(self, version: int, fault: Fault) -> list[str]: ...
    def peak_memory_gib(self) -> float: ...


@dataclass(slots=True, kw_only=True)
class Summary:
    """What the end of a run prints, and what summary.json holds."""

    steps: int = 0
    reward_first: float = 0.0
    reward_last: float = 0.0
    accuracy_before: float | None = None
    accuracy_after: float | None = None
    tokens_compared: int = 0
    tokens_different: int = 0
    draws_different: int = 0
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Sinks:
    folder: RunFolder
    wandb: WandbSink
    console: ConsoleReporter


class TrainingLoop:
    """One run. Give it the parts; `run` does the rest."""

    def __init__(
        self,
        config: TrainConfig,
        *,
        trainer: Trainer,
        rollouts: Rollouts,
        scorer: Scorer,
        codec: TextCodec,
        prompts: PromptStream,
        held_out: list[Problem],
        sinks: Sinks,
    ) -> None:
        self._config = config
        self._trainer, self._rollouts, self._scorer = trainer, rollouts, scorer
        self._codec, self._prompts, self._held_out = codec, prompts, held_out
        self._sinks = sinks
        self._synced = -1
        self.summary = Summary()

    def run(self) -> Summary:
        started = time.perf_counter()
        steps = self._config.trainer.steps
        self._sinks.console.start(steps)
        try:
            for step in range(1, steps + 1):
                self._step(step)
        finally:
            self._sinks.console.stop()
        self.summary.seconds = time.perf_counter() - started
        return self.summary

    def _step(self, step: int) -> None:
        times, row = m.StepTimes(), {"step": step}
        with _timed(times, "step"):
            with _timed(times, "sync"):
                different = self._sync(step, step - 1, row)
            if step == 1:
                with _timed(times, "eval"):
                    self._evaluate(row, "eval/accuracy_initial")
            problems = self._prompts.next(self._config.algorithm.prompts_per_step)
            samples = [problem for problem in problems for _ in range(self._config.algorithm.group_size)]
            with _timed(times, "rollout"):
                rollouts = self._rollouts.generate(self._requests(step, samples))
            with _timed(times, "reward"):
                texts = [self._codec.decode(rollout.response) for rollout in rollouts]
                scores = self._score(step, samples, texts)
            rewards = torch.tensor([s.reward for s in scores], dtype=torch.float64).view(len(problems), -1)
            advantages = group_advantages(rewards, self._config.algorithm).flatten().tolist()
            if self._config.telemetry.save_rollouts:
                self._sinks.folder.write_rollouts(step, samples, rollouts, texts, scores, advantages)
            with _timed(times, "train"):
                pairs = zip(rollouts, advantages, strict=True)
                ranks = self._trainer.train([TrainSample(rollout=r, advantage=a) for r, a in pairs])
            row |= m.reward_metrics(scores, rewards, groups_without_signal(rewards))
            row |= m.rollout_metrics(rollouts) | m.train_metrics(ranks)
            parity, counts = m.parity_metrics(ranks, len(different))
            row |= parity
            wrong = judge(counts, step)
            if wrong is None or self._config.parity.on_divergence is OnDivergence.warn:
                self._after_update(step, times, row)
        row |= m.time_metrics(times, row["response/tokens"], row["train/tokens"])
        row["memory/trainer_gib"] = self._trainer.peak_memory_gib()
        row["memory/rollout_gib"] = self._rollouts.peak_memory_gib()
        self._log(step, row)
        self._handle(wrong)

    def _after_update(self, step: int, times: m.StepTimes, row: m.Metrics) -> None:
        """Evaluate the new weights and save them, where the step asks for it."""
        last, every = step == self._config.trainer.steps, self._config.eval.every
        if last or (every and step % every == 0):
            with _timed(times, "sync"):
                self._sync(step, step, row)
            with _timed(times, "eval"):
                self._evaluate(row, "eval/accuracy")
        save_every = self._config.trainer.save_every
        if last or (save_every and step % save_every == 0):
            with _timed(times, "save"):
                self._trainer.save(str(self._sinks.folder.checkpoint(step)))

    def _sync(self, step: int, version: int, row: m.Metrics) -> list[str]:
        """Bring the engines to weight `version`, unless they have it; a difference in digests is an error."""
        if version == self._synced:
            return []
        parity = self._config.parity
        planted = version + 1 == parity.fault_step and step == parity.fault_step
        different = self._rollouts.sync(version, parity.fault if planted else Fault.none)
        self._synced = version
        if different:
            row |= {"parity/weights_digest_equal": 0}
            self._sinks.folder.write_metrics(row)
            raise DivergenceError(digest_message(different, step))
        return different

    def _requests(self, step: int, samples: list[Problem]) -> list[RolloutRequest]:
        config = self._config
        return [
            RolloutRequest(
                prompt=self._codec.encode(problem),
                seed=sample_seed(config.seed, step, index),
                max_tokens=config.rollout.max_tokens,
                stop_ids=self._codec.stop_ids,
            )
            for index, problem in enumerate(samples)
        ]

    def _score(self, step: int, samples: list[Problem], texts: list[str]) -> list[Score]:
        scores = self._scorer.score(samples, texts)
        return (
            shuffle_rewards(scores, sample_seed(self._config.seed, step, -1)) if self._config.reward.shuffle else scores
        )

    def _evaluate(self, row: m.Metrics, key: str) -> None:
        """Share of held-out problems whose greedy answer gets the full reward of 1."""
        if not self._held_out:
            return
        requests = [
            RolloutRequest(
                prompt=self._codec.encode(problem),
                seed=0,
                max_tokens=self._config.rollout.max_tokens,
                stop_ids=self._codec.stop_ids,
                greedy=True,
            )
            for problem in self._held_out
        ]
        texts = [self._codec.decode(rollout.response) for rollout in self._rollouts.generate(requests)]
        scores = self._scorer.score(self._held_out, texts)
        row[key] = sum(score.reward >= 1.0 for score in scores) / len(scores)
        row["eval/problems"] = len(scores)

    def _log(self, step: int, row: m.Metrics) -> None:
        summary = self.summary
        summary.steps = step
        if step == 1:
            summary.reward_first = row["reward/mean"]
            summary.accuracy_before = row.get("eval/accuracy_initial")
        summary.reward_last = row["reward/mean"]
        summary.accuracy_after = row.get("eval/accuracy", summary.accuracy_after)
        summary.tokens_compared += int(row["parity/tokens_compared"])
        summary.tokens_different += int(row["parity/tokens_different"])
        summary.draws_different += int(row["parity/draws_different"])
        self._sinks.folder.write_metrics(row)
        self._sinks.wandb.log(row)
        self._sinks.console.step(row, self._config.trainer.steps)

    def _handle(self, wrong: str | None) -> None:
        if wrong is None:
            return
        if self._config.parity.on_divergence is OnDivergence.fail:
            raise DivergenceError(wrong)
        self.summary.warnings.append(wrong)
        self._sinks.console.say(f"warning: {wrong}")


def sample_seed(seed: int, step: int, sample: int) -> int:
    """A request's seed, 0 <= seed < 2^63: a hash of the run's seed, the step and the sample."""
    digest = hashlib.blake2b(f"{seed}/{step}/{sample}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@contextmanager
def _timed(times: m.StepTimes, stage: str) -> Iterator[None]:
    started = time.perf_counter()
    try:
        yield
    finally:
        times.add(stage, time.perf_counter() - started)
