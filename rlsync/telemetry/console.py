"""Console output of a command: a live view on a terminal, one line a step elsewhere, or JSON lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from rlsync.config.telemetry import ConsoleStyle
from rlsync.telemetry.json_text import to_json
from rlsync.telemetry.live_view import LiveView
from rlsync.telemetry.parity_text import parity_of

if TYPE_CHECKING:  # the command line must not import torch
    from rlsync.telemetry.metrics import Metrics

_FILE_WIDTH = 132
"""Width in characters if the output is not a terminal."""


class ConsoleReporter:
    """Reports on stdout with rich. The command line writes errors to stderr itself.

    Args:
        console: Where it writes; None = stdout.
        style: How it writes; `auto` is `rich` on a terminal and `plain` elsewhere.
    """

    def __init__(self, console: Console | None = None, style: ConsoleStyle = ConsoleStyle.auto) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)
        if not self.console.is_terminal:
            self.console.width = _FILE_WIDTH
        self._view: LiveView | None = None
        self.use(style)

    def use(self, style: ConsoleStyle) -> None:
        """Write in another style from now on."""
        automatic = ConsoleStyle.rich if self.console.is_terminal else ConsoleStyle.plain
        self._style = automatic if style is ConsoleStyle.auto else style

    def say(self, text: str, *, result: bool = False) -> None:
        r"""Print a line; with style=quiet only a result. Characters that the terminal lacks are printed as \u...."""
        if self._style is ConsoleStyle.json:
            self._print(to_json({"event": "message", "text": text}))
        elif result or self._style is not ConsoleStyle.quiet:
            self._print(text)

    def table(self, title: str, columns: list[str], rows: list[list[str]]) -> None:
        """Print a table whose first column is text and whose other columns are numbers."""
        if self._style is ConsoleStyle.json:
            self._print(to_json({"event": "table", "title": title, "columns": columns, "rows": rows}))
            return
        table = Table(title=title, title_justify="left")
        for index, column in enumerate(columns):
            table.add_column(column, justify="right" if index else "left", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        self.console.print(table)

    def start(self, done: int, steps: int) -> None:
        """Begin a run of `steps` steps, of which `done` are complete; on a terminal this opens the live view."""
        if self._style is ConsoleStyle.rich:
            self._view = LiveView(self.console, done, steps)
            self._view.open()

    def stage(self, name: str) -> None:
        """Report the stage of the step that begins."""
        if self._view is not None:
            self._view.stage(name)

    def progress(self, done: int, total: int, tokens: int) -> None:
        """Report how many of a stage's responses are finished, and their tokens so far."""
        if self._view is not None:
            self._view.progress(done, total, tokens)

    def alarm(self, text: str) -> None:
        """Report something that the user should look at."""
        if self._view is not None:
            self._view.alarm(text)
        self.say(text)

    def step(self, metrics: Metrics, steps: int) -> None:
        """Report the metrics of a finished step."""
        if self._view is not None:
            self._view.step(metrics)
        elif self._style is ConsoleStyle.json:
            self._print(to_json({"event": "step", "steps": steps, **metrics}))
        elif self._style is not ConsoleStyle.quiet:
            self._print(step_line(metrics, steps))

    def stop(self) -> None:
        """Close the live view, and leave its last state on the terminal."""
        if self._view is not None:
            self._view.close()
            self._view = None

    def _print(self, text: str) -> None:
        encoding = self.console.encoding
        shown = text.encode(encoding, errors="backslashreplace").decode(encoding)
        self.console.print(shown, markup=False, highlight=False, soft_wrap=True)


def step_line(metrics: dict[str, Any], steps: int) -> str:
    """Return one line about a step: `step 12/60  reward 0.61  ...  0 of 1843 tokens differ  3.1 s`."""
    parts = [
        f"step {int(metrics['step'])}/{steps}",
        f"reward {metrics['reward/mean']:.3f}",
        f"entropy {metrics['train/entropy']:.3f}",
        f"grad {metrics['train/grad_norm']:.2f}",
        f"length {metrics['response/length_mean']:.1f}",
        parity_of(metrics),
        f"{metrics['time/step']:.1f} s",
    ]
    return "  ".join(parts)
