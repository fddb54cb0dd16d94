"""The training loop. It knows trainer and rollout engines only by protocols, and neither Ray nor vLLM.

A step: sync weights -> rollouts -> rewards -> credit -> train (compares every token) -> judge -> log -> save.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Protocol

import torch

from rlsync.algorithms.advantages import groups_without_signal
from rlsync.checkpoint.progress import Progress, keep
from rlsync.config.alarms import AlarmAction
from rlsync.config.kernels import KernelMode
from rlsync.config.parity import Coverage, Fault, OnDivergence
from rlsync.config.run import TrainConfig
from rlsync.controller import metrics as m
from rlsync.controller.collect import Sampler, shape_rewards
from rlsync.controller.credit import assign_credit
from rlsync.controller.evaluator import Evaluator
from rlsync.controller.step_log import Sinks, StepLog, stop_if_asked
from rlsync.controller.tracing import TracedRollouts, TracedTrainer, trace_step
from rlsync.data.prompts import PromptStream
from rlsync.data.text import TextCodec
from rlsync.errors import DivergenceError
from rlsync.parity.counts import Difference, Expected
from rlsync.parity.monitor import digest_message, judge, judge_ratio
from rlsync.rewards.scorer import Scorer
from rlsync.samples import Rollout, RolloutRequest, Sample
from rlsync.telemetry.metrics import Metrics, StepTimes
from rlsync.telemetry.summary import Summary
from rlsync.trace.report import TABLE_COLUMNS, headline, table_rows
from rlsync.trainer.packing import minibatch_bounds
from rlsync.trainer.stats import StepStats
from rlsync.weight_sync.sync import WeightSync


class Trainer(TracedTrainer, Protocol):
    """The interface of the trainer ranks that the loop uses."""

    def train(self, samples: list[Sample], version: int) -> list[StepStats]:
        """Train one step on the samples; `version` is the version of the weights before the step."""

    def reference_kl(self, rollouts: list[Rollout]) -> list[torch.Tensor]:
        """Return each rollout's KL to the reference, [T]; 0 at tokens that were not sampled."""

    def values(self, rollouts: list[Rollout]) -> list[torch.Tensor]:
        """Return the critic's value before each token of each rollout, [T]; 0 at tokens that were not sampled."""

    def save(self, folder: str, *, version: int, resumable: bool) -> None:
        """Write a checkpoint of weights of this version; `resumable`: with the trainer's state."""

    def peak_memory_gib(self) -> float:
        """Return the sum of the peak resident memory of all ranks, in GiB."""


class Rollouts(TracedRollouts, Protocol):
    """The interface of the rollout engines that the loop uses."""

    def generate(self, requests: list[RolloutRequest]) -> Iterable[tuple[int, Rollout]]:
        """Yield the index and the rollout of each request when it is finished."""

    def sleep(self) -> None:
        """With rollout.sleep=true, free the engines' GPU memory for the trainer until the next sync."""

    def peak_memory_gib(self) -> float:
        """Return the sum of the peak resident memory of all engines, in GiB."""


class TrainingLoop:
    """Runs the steps of a training run.

    Args:
        config: The run's configuration.
        trainer: The trainer ranks.
        rollouts: The rollout engines.
        weights: Keeps the engines' weights in sync with the trainer's.
        scorer: Scores the responses of a step.
        codec: Converts between texts and token ids.
        prompts: The training problems in their order.
        evaluator: Evaluates held-out problems.
        sinks: Where metrics and rollouts are written.
        progress: Progress of the trainer and the prompts: at the beginning, or at a checkpoint.
    """

    def __init__(
        self,
        config: TrainConfig,
        *,
        trainer: Trainer,
        rollouts: Rollouts,
        weights: WeightSync,
        scorer: Scorer,
        codec: TextCodec,
        prompts: PromptStream,
        evaluator: Evaluator,
        sinks: Sinks,
        progress: Progress,
    ) -> None:
        self._config = config
        self._trainer, self._rollouts, self._weights, self._evaluator = trainer, rollouts, weights, evaluator
        self._sampler = Sampler(config, rollouts, scorer, codec, prompts)
        self._prompts, self._sinks = prompts, sinks
        self._log = StepLog(config, sinks, progress.summary, codec)
        self._started = 0.0
        self._done, self.summary, self._saved = progress.step, progress.summary, list(progress.saved)

    def run(self) -> Summary:
        """Run all remaining steps.

        Raises:
            DivergenceError: Bits differ, and parity.on_divergence=fail.
            AlarmError: An alarm with the action `stop` has fired.
        """
        self._started = time.perf_counter() - self.summary.seconds
        steps = self._config.trainer.steps
        self._sinks.console.start(self._done, steps)
        try:
            for step in range(self._done + 1, steps + 1):
                self._step(step)
        finally:
            self._sinks.console.stop()
        self.summary.seconds = time.perf_counter() - self._started
        return self.summary

    def _step(self, step: int) -> None:
        times, saved = StepTimes(on_stage=self._sinks.console.stage), False
        row: Metrics = {"step": step}
        with times.measure("step"):
            with times.measure("sync"):
                different = self._sync(step, step - 1, row)
            if step == 1:
                with times.measure("eval"):
                    row |= self._evaluator.metrics("_initial")
            batch = self._sampler.batch(step, times)
            samples = batch.samples
            with times.measure("sync"):
                self._rollouts.sleep()
            with times.measure("reward"):
                shaping = shape_rewards(samples, self._config, self._trainer.reference_kl)
            with times.measure("train"):
                credit = assign_credit(samples, self._config.algorithm, self._trainer.values)
            if self._config.telemetry.save_rollouts:
                self._sinks.folder.write_rollouts(step, samples)
            with times.measure("train"):
                ranks = self._trainer.train(samples, self._weights.version)
            row |= m.reward_metrics(samples, batch.rewards, groups_without_signal(batch.rewards))
            row |= batch.metrics() | m.rollout_metrics(samples) | m.train_metrics(ranks) | shaping
            row |= credit | m.critic_metrics(ranks)
            parity, counts = m.parity_metrics(ranks, len(different))
            row |= parity
            wrong = judge(counts, step, self._expected(samples)) or self._judge_ratio(ranks, step)
            if wrong is not None and self._config.parity.on_divergence is OnDivergence.trace and counts.first:
                wrong = f"{wrong} {self._trace(step, samples, counts.first)}"
            if wrong is None or not self._config.parity.on_divergence.stops:
                saved = self._after_update(step, times, row)
        row |= m.time_metrics(times, batch.tokens_drawn, row["train/rows"])
        row["memory/trainer_gib"] = self._trainer.peak_memory_gib()
        row["memory/rollout_gib"] = self._rollouts.peak_memory_gib()
        seconds = time.perf_counter() - self._started
        fired = self._log.record(row, samples, counts.ulps_by_power, seconds)
        self._handle(wrong)
        if not saved and any(AlarmAction.checkpoint in each.actions for each in fired):
            self._trainer.save(str(self._sinks.folder.checkpoint(step)), version=step, resumable=True)
            self._sinks.console.say(f"checkpoint for an alarm: {self._sinks.folder.checkpoint(step)}")
            saved = True
        if saved:  # after the step's metrics have been written
            self._keep(step)
        stop_if_asked(fired)

    def _keep(self, step: int) -> None:
        """Mark the step's checkpoint as complete, and remove the run's oldest ones beyond trainer.save_keep."""
        folder, saved = self._sinks.folder, [*self._saved, step]
        self._saved = saved[-self._config.trainer.save_keep :]  # with save_keep=0 this keeps all
        prompts, run_id = self._prompts.state(), self._sinks.wandb.run_id
        made = Progress(step=step, prompts=prompts, summary=self.summary, wandb_id=run_id, saved=self._saved)
        keep(folder.checkpoint(step), made)
        for old in saved[: -len(self._saved)]:
            folder.remove(old)

    def _after_update(self, step: int, times: StepTimes, row: Metrics) -> bool:
        """Evaluate and save the new weights if it is due, and return whether a resumable checkpoint was written."""
        last, every = step == self._config.trainer.steps, self._config.eval.every
        if last or (every and step % every == 0):
            with times.measure("sync"):
                if self._sync(step, step, row):
                    row["parity/weights_digest_equal"] = 0
            with times.measure("eval"):
                row |= self._evaluator.metrics()
        save_every = self._config.trainer.save_every
        resumable = save_every > 0
        saves = last or (resumable and step % save_every == 0)
        if saves:
            with times.measure("save"):
                self._trainer.save(str(self._sinks.folder.checkpoint(step)), version=step, resumable=resumable)
        return saves and resumable

    def _sync(self, step: int, version: int, row: Metrics) -> list[str]:
        """Sync the engines to the weights of `version`, and return the names of tensors whose digests differ.

        Raises:
            DivergenceError: Digests differ, and parity.on_divergence=fail. The step's metrics have been written.
        """
        parity = self._config.parity
        planted = version + 1 == parity.fault_step and step == parity.fault_step
        different = self._weights.run(version, parity.fault if planted else Fault.none)
        if different:
            if parity.on_divergence.stops:
                self._sinks.folder.write_metrics(row | {"parity/weights_digest_equal": 0})
            self._handle(digest_message(different, step))
        return different

    def _trace(self, step: int, samples: list[Sample], first: Difference) -> str:
        """Trace the first sample that differs, show where the difference grows, and return what to add to the error."""
        if self._config.rollout.sleep:  # the engines have given their weights away
            self._weights.run(step - 1, Fault.none)
        self._sinks.console.say(f"step {step}: bits differ; replaying sample {first.sequence} on both sides")
        report = trace_step(self._config, samples, first, self._trainer, self._rollouts)
        path = self._sinks.folder.write_trace(step, report)
        self._sinks.console.table("difference by op", TABLE_COLUMNS, table_rows(report)[:40])
        return f"{headline(report)} Every op's difference is in {path}."

    def _expected(self, samples: list[Sample]) -> Expected:
        """Return the counts that the monitor must reach if nothing is left out by mistake."""
        trainer, looks_first = self._config.trainer, self._config.parity.coverage is Coverage.all
        sampled = [sample.rollout.num_sampled for sample in samples]
        first_end = minibatch_bounds(len(samples), trainer.minibatches)[1]
        return Expected(tokens_sampled=sum(sampled), tokens_left_out=0 if looks_first else sum(sampled[first_end:]))

    def _judge_ratio(self, ranks: list[StepStats], step: int) -> str | None:
        if self._config.kernels.mode is not KernelMode.invariant:
            return None
        low, high = min(rank.first_ratio_min for rank in ranks), max(rank.first_ratio_max for rank in ranks)
        return judge_ratio(low, high, step)

    def _handle(self, wrong: str | None) -> None:
        if wrong is None:
            return
        if self._config.parity.on_divergence.stops:
            raise DivergenceError(wrong)
        self.summary.warnings.append(wrong)
        self._sinks.console.alarm(f"warning: {wrong}")
