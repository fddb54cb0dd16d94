"""Alarms on the metrics of a run. Their state is a function of the metrics so far, so a resumed run recomputes it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from rlsync.config.alarms import AlarmAction, AlarmConfig
from rlsync.telemetry.alarm_conditions import FLAGS, Seen, condition
from rlsync.telemetry.metrics import Metrics

_ONLY_SOMETIMES = "eval/"
"""Beginning of the keys that only some steps have."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Fired:
    """An alarm that fires in a step."""

    step: int
    name: str
    value: float
    message: str
    """What happened and what to do, as whole sentences that begin with the step."""
    actions: list[AlarmAction]


class Alarms:
    """The alarms of a run. Each fires once, and again only after its condition has not held for some steps.

    Args:
        configs: Configurations by name. Those that are not enabled are left out.
    """

    def __init__(self, configs: dict[str, AlarmConfig]) -> None:
        self._alarms = {name: _Alarm(config) for name, config in configs.items() if config.enabled}

    def replay(self, rows: Iterable[Metrics]) -> None:
        """Bring the state up to date with steps that an earlier part of the run has told about."""
        for row in rows:
            self.check(row)

    def check(self, row: Metrics) -> list[Fired]:
        """Look at the metrics of the next step, and return the alarms that fire."""
        due = {name: seen for name, alarm in self._alarms.items() if (seen := alarm.see(row))}
        fired = []
        for name, seen in due.items():
            alarm = self._alarms[name]
            other = alarm.config.covered_by
            if other in due or (other in self._alarms and self._alarms[other].on):
                continue
            alarm.on = True
            fired.append(_fired(name, alarm.config, seen, row))
        return fired

    def flags(self) -> Metrics:
        """Return alarms/NAME for each alarm: 1 from the step in which it fires until its condition has cleared."""
        return {f"{FLAGS}{name}": int(alarm.on) for name, alarm in self._alarms.items()}

    def unknown(self, row: Metrics) -> list[str]:
        """Return a message for each alarm whose metric the first step of a run does not have."""
        messages = []
        for name, alarm in self._alarms.items():
            for key in filter(None, (alarm.config.metric, alarm.config.over)):
                if "*" in key or key in row or key.startswith(_ONLY_SOMETIMES):
                    continue
                near = get_close_matches(key, row, n=3)
                advice = f" Nearest: {', '.join(near)}" if near else ""
                messages.append(f"alarms.{name}: this run has no metric {key}, so the alarm never fires.{advice}")
        return messages


class _Alarm:
    """One alarm with its state."""

    def __init__(self, config: AlarmConfig) -> None:
        self.config, self._condition = config, condition(config)
        self.on = False
        self._held = self._calm = 0

    def see(self, row: Metrics) -> Seen | None:
        """Look at the next step. Returns what was seen if the alarm is due; it is not on before it has been told."""
        seen = self._condition.see(row)
        if seen is None:
            return None
        self._held = self._held + 1 if seen.holds else 0
        self._calm = 0 if seen.holds else self._calm + 1
        if self._calm >= self.config.clear_steps:
            self.on = False
        return seen if not self.on and self._held >= self.config.for_steps else None


def _fired(name: str, config: AlarmConfig, seen: Seen, row: Metrics) -> Fired:
    steps = f" for {config.for_steps} steps in a row" if config.for_steps > 1 else ""
    advice = re.sub(r"\{([\w/@.-]+)\}", lambda key: f"{row[key[1]]:.4g}" if key[1] in row else key[0], config.advice)
    message = f"step {int(row['step'])}: {seen.text}{steps}. {advice}".rstrip()
    return Fired(step=int(row["step"]), name=name, value=seen.value, message=message, actions=config.actions)
