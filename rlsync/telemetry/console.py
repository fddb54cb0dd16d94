"""Console output: a progress bar on a terminal, or else one line for each step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from rlsync.telemetry.parity_text import parity_text

if TYPE_CHECKING:  # the command line must not import torch
    from rlsync.telemetry.metrics import Metrics

_FILE_WIDTH = 132
"""Width in characters if the output is not a terminal."""


class ConsoleReporter:
    """Reports on stdout with rich. The command line writes errors to stderr itself."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)
        if not self.console.is_terminal:
            self.console.width = _FILE_WIDTH
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def say(self, text: str) -> None:
        r"""Print a line. Characters that the terminal's encoding does not have are printed as \u...."""
        encoding = self.console.encoding
        self.console.print(text.encode(encoding, errors="backslashreplace").decode(encoding), markup=False)

    def table(self, title: str, columns: list[str], rows: list[list[str]]) -> None:
        """Print a table whose first column is text and whose other columns are numbers."""
        table = Table(title=title, title_justify="left")
        for index, column in enumerate(columns):
            table.add_column(column, justify="right" if index else "left", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        self.console.print(table)

    def start(self, steps: int) -> None:
        """Show the progress bar of a run of `steps` steps, on a terminal."""
        if self.console.is_terminal:
            columns = (
                TextColumn("step"),
                MofNCompleteColumn(),
                BarColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.description}"),
            )
            self._progress = Progress(*columns, console=self.console, transient=True)
            self._task = self._progress.add_task("", total=steps)
            self._progress.start()

    def step(self, metrics: Metrics, steps: int) -> None:
        """Report the metrics of a finished step."""
        line = step_line(metrics, steps)
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, advance=1, description=line.partition("  ")[2])
        else:
            self.say(line)

    def stop(self) -> None:
        """Remove the progress bar."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def step_line(metrics: Metrics, steps: int) -> str:
    """Return one line about a step: `step 12/60  reward 0.61  ...  0 of 1843 tokens differ  3.1 s`."""
    parts = [
        f"step {int(metrics['step'])}/{steps}",
        f"reward {metrics['reward/mean']:.3f}",
        f"entropy {metrics['train/entropy']:.3f}",
        f"grad {metrics['train/grad_norm']:.2f}",
        f"length {metrics['response/length_mean']:.1f}",
        parity_text(
            sampled=int(metrics["parity/tokens_sampled"]),
            compared=int(metrics["parity/tokens_compared"]),
            different=int(metrics["parity/tokens_different"]),
            rows_different=int(metrics["parity/rows_different"]),
        ),
        f"{metrics['time/step']:.1f} s",
    ]
    return "  ".join(parts)
