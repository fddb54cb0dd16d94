"""The live view of a training run on a terminal: step, stage, reward, parity, speed and the latest alarms."""

from __future__ import annotations

import math
import time
from collections import deque

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rlsync.telemetry.parity_text import parity_of

_BARS = "▁▂▃▄▅▆▇█"
_POINTS, _ALARMS = 40, 3
"""Numbers of rewards in the sparkline and of alarms that are shown."""
_PER_SECOND = 4
"""Number of times a second that the view is drawn."""


class LiveView:
    """Draws the state of a run in place. What is printed meanwhile appears above it.

    Args:
        console: The terminal.
        done: Number of steps that are complete, when a run is resumed.
        steps: Number of steps of the run; 0 for an evaluation, which has none.
    """

    def __init__(self, console: Console, done: int, steps: int) -> None:
        self._begun, self._done, self._steps = done, done, steps
        self._started = time.monotonic()
        self._stage, self._stage_started, self._progress = "starting", time.monotonic(), ""
        self._rewards: deque[float] = deque(maxlen=_POINTS)
        self._alarms: deque[str] = deque(maxlen=_ALARMS)
        self._metrics: dict[str, float] = {}
        self._live = Live(console=console, get_renderable=self.draw, refresh_per_second=_PER_SECOND)

    def open(self) -> None:
        """Begin to draw."""
        self._live.start()

    def close(self) -> None:
        """Draw the last state, and stop."""
        self._stage, self._progress = "", ""
        self._live.stop()

    def stage(self, name: str) -> None:
        """Show the stage that begins."""
        self._stage, self._stage_started, self._progress = name, time.monotonic(), ""

    def progress(self, done: int, total: int, tokens: int) -> None:
        """Show how many of the stage's responses are finished, and the speed."""
        seconds = max(time.monotonic() - self._stage_started, 1e-9)
        self._progress = f"{done} of {total} responses, {tokens / seconds:,.0f} tokens/s"

    def alarm(self, text: str) -> None:
        """Show an alarm until newer ones take its place."""
        self._alarms.append(text)

    def step(self, metrics: dict[str, float]) -> None:
        """Show the metrics of a finished step."""
        self._metrics, self._done = metrics, int(metrics["step"])
        self._rewards.append(metrics["reward/mean"])

    def draw(self) -> RenderableType:
        """Return what is drawn."""
        parts: list[RenderableType] = [self._head()]
        if self._metrics:
            parts += [self._reward_line(), self._parity_line(), self._numbers()]
        parts += [Text(f"! {alarm}", style="yellow") for alarm in self._alarms]
        return Group(*parts)

    def _head(self) -> RenderableType:
        head = Table.grid(padding=(0, 2))
        stage = f"{self._stage} {time.monotonic() - self._stage_started:.0f} s" if self._stage else "done"
        steps: list[RenderableType] = []
        if self._steps:
            bar = ProgressBar(total=self._steps, completed=self._done, width=30)
            steps = [f"step {self._done}/{self._steps}", bar, self._remaining()]
        head.add_row(*steps, stage, self._progress)
        return head

    def _remaining(self) -> str:
        """Return the estimate of the time that the remaining steps take."""
        done = self._done - self._begun
        if not done:
            return "ETA -"
        seconds = (time.monotonic() - self._started) / done * (self._steps - self._done)
        hours, minutes = divmod(round(seconds) // 60, 60)
        return f"ETA {hours} h {minutes:02d} min" if hours else f"ETA {minutes} min {round(seconds) % 60:02d} s"

    def _reward_line(self) -> RenderableType:
        return Text.assemble("reward ", (f"{self._rewards[-1]:.3f} ", "bold"), (sparkline(list(self._rewards)), "cyan"))

    def _parity_line(self) -> RenderableType:
        wrong = self._metrics["parity/tokens_different"] + self._metrics["parity/rows_different"]
        return Text.assemble("parity ", ("● ", "red" if wrong else "green"), parity_of(self._metrics))

    def _numbers(self) -> RenderableType:
        shown = self._metrics
        return Text(
            f"entropy {shown['train/entropy']:.3f}  grad {shown['train/grad_norm']:.2f}  "
            f"length {shown['response/length_mean']:.1f}  {shown['time/step']:.1f} s a step  "
            f"{shown['perf/rollout_tokens_per_s']:,.0f} tokens/s sampled"
        )


def sparkline(values: list[float]) -> str:
    """Return a character for each value, from the lowest to the highest; values that are not finite are blank."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return " " * len(values)
    low, span = min(finite), (max(finite) - min(finite)) or 1.0
    return "".join(_BARS[int((v - low) / span * (len(_BARS) - 1))] if math.isfinite(v) else " " for v in values)
