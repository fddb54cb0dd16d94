"""Configuration of the alarms, which watch the metrics of a run (configs/alarms/)."""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import StrEnum
from string import ascii_lowercase, digits

from rlsync.config.numbers import check_counts
from rlsync.errors import ConfigError

SECTIONS = (
    "reward",
    "response",
    "rollout",
    "environment",
    "train",
    "critic",
    "parity",
    "eval",
    "time",
    "perf",
    "memory",
)
"""Sections of the metrics: the part of a key before the slash (docs/metrics.md)."""
_NAME = frozenset(ascii_lowercase + digits + "_")


class AlarmKind(StrEnum):
    """The kind of an alarm's condition."""

    threshold = "threshold"
    """The value is above `above` or below `below`."""
    trend = "trend"
    """The mean of the last `window` steps is above `above` times a reference, or below `below` times it."""
    equal = "equal"
    """The value is the same as one step before. With for_steps=n it was the same n steps in a row."""
    not_finite = "not_finite"
    """The value, or one of those that a pattern such as * or train/* matches, is NaN or infinite."""


class Reference(StrEnum):
    """The reference that a trend is compared with. All but `first` look at the `history` steps before the window."""

    first = "first"
    """The mean of the first `window` steps."""
    best = "best"
    """The largest mean of `window` steps in a row."""
    mean = "mean"
    """The mean of the steps."""
    median = "median"
    """The median of the steps."""


class AlarmAction(StrEnum):
    """An action of an alarm that fires. Every alarm is also written to alarms.jsonl and to the metrics."""

    log = "log"
    """Say it on the console and in the summary."""
    alert = "alert"
    """Send an alert through wandb, which delivers it by mail or Slack as the user has set it up there."""
    checkpoint = "checkpoint"
    """Save a checkpoint that can be resumed."""
    stop = "stop"
    """End the run after the step, with exit code 6."""


@dataclass(kw_only=True, slots=True)
class AlarmConfig:
    """Configuration of one alarm."""

    enabled: bool = True
    """Whether the alarm watches its metric."""
    metric: str = ""
    """Key of a metric (docs/metrics.md)."""
    over: str = ""
    """Key of a metric by which the value is divided, for shares; empty = none."""
    kind: AlarmKind = AlarmKind.threshold
    above: float | None = None
    """Bound that the value must exceed; in a trend the bound of its multiple of the reference; null = no such bound."""
    below: float | None = None
    """Bound that the value must fall below; in a trend that of its multiple of the reference; null = no such bound."""
    reference: Reference = Reference.mean
    window: int = 1
    """Number of steps whose mean is compared with the reference."""
    history: int = 20
    """Number of earlier steps that the reference looks at. The condition cannot hold before there are `min_history`."""
    min_history: int = 5
    """Smallest number of steps before the window that a reference is made from; `first` needs none."""
    min_change: float = 0.0
    """Smallest difference between the mean and the reference that counts, whatever their ratio."""
    for_steps: int = 1
    """Number of steps in a row in which the condition must hold."""
    clear_steps: int = 3
    """Number of steps in a row without the condition after which the alarm may fire again."""
    actions: list[AlarmAction] = field(default_factory=lambda: [AlarmAction.log, AlarmAction.alert])
    covered_by: str = ""
    """Name of an alarm that says more. This one is not told in a step in which that one fires or is on."""
    advice: str = ""
    """Advice to the user, in whole sentences. They follow the sentence that says what happened."""

    def check(self, at: str) -> None:
        """Raise ConfigError if the alarm's fields contradict each other; `at` is its dotted key."""
        patterns = self.kind is AlarmKind.not_finite
        _check_metric(f"{at}.metric", self.metric, patterns=patterns)
        if self.over:
            _check_metric(f"{at}.over", self.over, patterns=False)
        bounded = self.kind in (AlarmKind.threshold, AlarmKind.trend)
        if bounded and self.above is None and self.below is None:
            raise ConfigError(f"{at}.above and {at}.below are not set, and kind={self.kind} needs one. Give a number")
        check_counts(
            at,
            {
                "window": self.window,
                "history": self.history,
                "min_history": self.min_history,
                "for_steps": self.for_steps,
                "clear_steps": self.clear_steps,
            },
        )
        if self.history < max(self.window, self.min_history):
            raise ConfigError(
                f"{at}.history={self.history}: the reference needs at least {at}.window={self.window} and "
                f"{at}.min_history={self.min_history} steps. Raise {at}.history"
            )
        if self.min_change < 0:
            raise ConfigError(f"{at}.min_change={self.min_change}: must not be negative")


def check_alarms(alarms: dict[str, AlarmConfig]) -> None:
    """Check the alarms of a run.

    Raises:
        ConfigError: A name or a metric cannot exist, or fields contradict each other. Alarms that are switched off are
            checked too.
    """
    for name, alarm in alarms.items():
        at = f"alarms.{name}"
        if not name or not set(name) <= _NAME:
            raise ConfigError(f"{at}: an alarm's name consists of small letters, digits and underscores")
        alarm.check(at)
        if alarm.covered_by and alarm.covered_by not in alarms:
            raise ConfigError(f"{at}.covered_by={alarm.covered_by}: there is no such alarm. Valid: {', '.join(alarms)}")
        if alarm.covered_by == name:
            raise ConfigError(f"{at}.covered_by={name}: an alarm cannot be covered by itself. Leave it out")


def _check_metric(at: str, metric: str, *, patterns: bool) -> None:
    """Refuse a key that no run can have. Whether this run has it shows after the first step."""
    section, slash, rest = metric.partition("/")
    if patterns and "*" in metric:
        return
    if not metric:
        raise ConfigError(f"{at} is empty. Give the key of a metric, such as reward/mean (docs/metrics.md)")
    if not slash or not rest or section not in SECTIONS:
        near = get_close_matches(section, SECTIONS, n=1)
        advice = f"Did you mean {near[0]}/{rest}?" if near and rest else f"Keys begin with {', '.join(SECTIONS)}"
        raise ConfigError(f"{at}={metric}: no metric has this key. {advice}")
