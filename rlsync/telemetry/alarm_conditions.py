"""Conditions of alarms: pure functions of the metrics of the steps so far."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice
from statistics import fmean, median
from typing import Protocol

from rlsync.config.alarms import AlarmConfig, AlarmKind, Reference
from rlsync.telemetry.metrics import Metrics

FLAGS = "alarms/"
"""Beginning of the keys that say which alarms are on."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Seen:
    """What a condition found in a step."""

    holds: bool
    value: float
    text: str
    """What happened, as a sentence without a full stop."""


class Condition(Protocol):
    """The condition of an alarm, with what it remembers of earlier steps."""

    def see(self, row: Metrics) -> Seen | None:
        """Look at the next step. None if the step does not have the metric."""


def condition(config: AlarmConfig) -> Condition:
    """Make the condition of an alarm."""
    kinds: dict[AlarmKind, type[Threshold] | type[Trend] | type[Equal] | type[NotFinite]] = {
        AlarmKind.threshold: Threshold,
        AlarmKind.trend: Trend,
        AlarmKind.equal: Equal,
        AlarmKind.not_finite: NotFinite,
    }
    return kinds[config.kind](config)


class Threshold:
    """A value above or below a number."""

    def __init__(self, config: AlarmConfig) -> None:
        self._config, self._name = config, _name(config)

    def see(self, row: Metrics) -> Seen | None:
        """Compare the step's value."""
        value = _value(self._config, row)
        if value is None:
            return None
        bound = _crossed(value, self._config.above, self._config.below)
        return Seen(holds=bound is not None, value=value, text=f"{self._name} is {value:.4g}{bound or ''}")


class Trend:
    """The mean of the last steps against a multiple of a reference. Values that are not finite are left out."""

    def __init__(self, config: AlarmConfig) -> None:
        self._config, self._name = config, _name(config)
        self._first: list[float] = []
        self._count = 0
        self._values: deque[float] = deque(maxlen=config.history + config.window)

    def see(self, row: Metrics) -> Seen | None:
        """Add the step's value, and compare once there are enough."""
        config, value = self._config, _value(self._config, row)
        if value is None:
            return None
        if math.isfinite(value):
            self._count += 1
            self._values.append(value)
            if len(self._first) < config.window:
                self._first.append(value)
        recent = fmean(list(self._values)[-config.window :]) if self._values else math.nan
        reference = self._reference()
        if reference is None or not math.isfinite(value):
            return Seen(holds=False, value=recent, text="")
        return self._compare(recent, reference)

    def _compare(self, recent: float, reference: float) -> Seen:
        config, bound = self._config, None
        if reference and abs(recent - reference) >= config.min_change:
            # The distance from the reference is measured in the reference's size, so a negative one works too.
            bound = _crossed(1 + (recent - reference) / abs(reference), config.above, config.below)
        mean = "" if config.window == 1 else f" on average over the last {config.window} steps"
        text = f"{self._name} is {recent:.4g}{mean}{bound or ''} times {_WORDS[config.reference]} of {reference:.4g}"
        return Seen(holds=bound is not None, value=recent, text=text)

    def _reference(self) -> float | None:
        config = self._config
        if config.reference is Reference.first:
            return fmean(self._first) if self._count >= 2 * config.window else None
        earlier = list(islice(self._values, max(0, len(self._values) - config.window)))
        if len(earlier) < max(config.min_history, config.window):
            return None
        if config.reference is Reference.best:
            windows = range(len(earlier) - config.window + 1)
            return max(fmean(earlier[begin : begin + config.window]) for begin in windows)
        return median(earlier) if config.reference is Reference.median else fmean(earlier)


class Equal:
    """A value that does not change from step to step."""

    def __init__(self, config: AlarmConfig) -> None:
        self._config, self._name = config, _name(config)
        self._before: float | None = None

    def see(self, row: Metrics) -> Seen | None:
        """Compare the step's value with that of the step before."""
        value = _value(self._config, row)
        if value is None:
            return None
        same, self._before = value == self._before, value
        return Seen(holds=same, value=value, text=f"{self._name} has stayed at {value:.4g}")


class NotFinite:
    """A value, or one of several that match a pattern, that is NaN or infinite."""

    def __init__(self, config: AlarmConfig) -> None:
        self._pattern = config.metric

    def see(self, row: Metrics) -> Seen | None:
        """Look for such a value."""
        keys = [key for key in row if fnmatchcase(key, self._pattern) and not key.startswith(FLAGS)]
        if not keys:
            return None
        bad = [key for key in keys if not math.isfinite(row[key])]
        if not bad:
            return Seen(holds=False, value=row[keys[0]], text="")
        others = f", and {len(bad) - 3} more" if len(bad) > 3 else ""
        are = "are" if len(bad) > 1 else "is"
        return Seen(holds=True, value=row[bad[0]], text=f"{', '.join(bad[:3])}{others} {are} not finite")


_WORDS = {
    Reference.first: "its first value",
    Reference.best: "its best earlier mean",
    Reference.mean: "its earlier mean",
    Reference.median: "its earlier median",
}


def _name(config: AlarmConfig) -> str:
    return f"{config.metric} / {config.over}" if config.over else config.metric


def _value(config: AlarmConfig, row: Metrics) -> float | None:
    """Return the value of a step; None if it is missing, or a share of 0."""
    value = row.get(config.metric)
    if value is None or not config.over:
        return value
    whole = row.get(config.over)
    return value / whole if whole else None


def _crossed(value: float, above: float | None, below: float | None) -> str | None:
    """Return which bound the value has crossed, for a sentence; None if it has crossed none, as NaN does not."""
    if above is not None and value > above:
        return f", above {above:g}"
    if below is not None and value < below:
        return f", below {below:g}"
    return None
