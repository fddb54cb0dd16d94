"""Reports each step of the loop: its metrics, histograms, samples and alarms."""

from __future__ import annotations

from dataclasses import dataclass

from rlsync.algorithms.advantages import GROUP_RELATIVE
from rlsync.config.alarms import AlarmAction, AlarmConfig
from rlsync.config.kernels import KernelMode
from rlsync.config.run import TrainConfig
from rlsync.data.text import TextCodec
from rlsync.errors import AlarmError
from rlsync.samples import Sample
from rlsync.telemetry.alarms import Alarms, Fired
from rlsync.telemetry.console import ConsoleReporter
from rlsync.telemetry.histograms import step_histograms
from rlsync.telemetry.metrics import Metrics
from rlsync.telemetry.run_folder import RunFolder
from rlsync.telemetry.sample_table import is_due, sample_rows
from rlsync.telemetry.summary import Summary
from rlsync.telemetry.tensorboard_sink import TensorboardSink
from rlsync.telemetry.wandb_sink import WandbSink


@dataclass(slots=True, kw_only=True)
class Sinks:
    """Where the loop reports to."""

    folder: RunFolder
    wandb: WandbSink
    console: ConsoleReporter
    tensorboard: TensorboardSink | None = None


class StepLog:
    """Reports the steps of a run.

    Args:
        config: The run's configuration.
        sinks: Where to report.
        summary: Summary of the steps so far, which `record` continues.
        codec: Makes texts of token ids.
    """

    def __init__(self, config: TrainConfig, sinks: Sinks, summary: Summary, codec: TextCodec) -> None:
        self._config, self._sinks, self._summary, self._codec = config, sinks, summary, codec
        self._alarms = Alarms(applicable(config))
        self._alarms.replay(sinks.folder.metrics())
        self._is_first = True

    def record(self, row: Metrics, samples: list[Sample], ulps_by_power: list[int], seconds: float) -> list[Fired]:
        """Report a step, and return the alarms that fire; actions on the run itself are left to the loop.

        Args:
            row: The step's metrics. The state of the alarms is added to them.
            samples: The samples that the step trained on.
            ulps_by_power: Sizes of the log-probs' differences, as the monitor counts them.
            seconds: Duration of the run so far.
        """
        step, sinks, last = int(row["step"]), self._sinks, self._config.trainer.steps
        fired = self._alarms.check(row)
        unknown = self._alarms.unknown(row) if self._is_first else []
        self._is_first = False
        row |= self._alarms.flags()
        _continue(self._summary, row, seconds)
        sinks.folder.write_metrics(row)
        histograms, telemetry = step_histograms(samples, ulps_by_power), self._config.telemetry
        table = is_due(telemetry, step, last) and sinks.wandb.run_id is not None
        rows = sample_rows(samples, telemetry, step=step, text_of=self._codec.decode) if table else []
        sinks.wandb.log(row, histograms, rows)
        if sinks.tensorboard is not None:
            sinks.tensorboard.log(row, histograms)
        sinks.console.step(row, last)
        for text in unknown:
            self._summary.warnings.append(text)
            sinks.console.alarm(f"warning: {text}")
        for each in fired:
            self._tell(each)
        return fired

    def _tell(self, fired: Fired) -> None:
        sinks = self._sinks
        sinks.folder.write_alarm(fired)
        if sinks.tensorboard is not None:
            sinks.tensorboard.alert(fired)
        self._summary.alarms.append(f"{fired.name} at step {fired.step}")
        if AlarmAction.log in fired.actions:
            sinks.console.alarm(f"alarm {fired.name}: {fired.message}")
        if AlarmAction.alert in fired.actions:
            sinks.wandb.alert(fired)


def applicable(config: TrainConfig) -> dict[str, AlarmConfig]:
    """Return the run's alarms without those of configs/alarms/default.yaml that say nothing in this run."""
    algorithm, needless = config.algorithm, set()
    if config.parity.on_divergence.stops or config.kernels.mode is KernelMode.native:
        needless |= {"tokens_differ", "rows_differ"}  # the run stops anyway, or all tokens differ anyway
    if algorithm.advantage not in GROUP_RELATIVE or algorithm.group_size == 1:
        needless |= {"no_signal"}
    return {name: alarm for name, alarm in config.alarms.items() if name not in needless}


def stop_if_asked(fired: list[Fired]) -> None:
    """End the run if an alarm asks for it.

    Raises:
        AlarmError: An alarm with the action `stop` has fired. The step's metrics have been written.
    """
    for each in fired:
        if AlarmAction.stop in each.actions:
            raise AlarmError(
                f"alarm {each.name} has stopped the run. {each.message} To go on in spite of it, leave stop out of "
                f"alarms.{each.name}.actions."
            )


def _continue(summary: Summary, row: Metrics, seconds: float) -> None:
    """Add a step to the summary."""
    step = int(row["step"])
    summary.steps, summary.seconds = step, seconds
    if step == 1:
        summary.reward_first = row["reward/mean"]
        summary.accuracy_before = row.get("eval/accuracy_initial")
    summary.reward_last = row["reward/mean"]
    summary.accuracy_after = row.get("eval/accuracy", summary.accuracy_after)
    summary.tokens_sampled += int(row["parity/tokens_sampled"])
    summary.tokens_compared += int(row["parity/tokens_compared"])
    summary.tokens_different += int(row["parity/tokens_different"])
    summary.rows_compared += int(row["parity/rows_compared"])
    summary.rows_different += int(row["parity/rows_different"])
    summary.draws_different += int(row["parity/draws_different"])
