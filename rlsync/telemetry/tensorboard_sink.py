"""Write metrics for TensorBoard."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rlsync.telemetry.alarms import Fired
from rlsync.telemetry.histograms import Histogram
from rlsync.telemetry.metrics import Metrics

FOLDER = "tensorboard"
"""Name in a run folder."""


class TensorboardSink:
    """The event files of a run.

    Args:
        folder: The run folder.
        done: Number of steps from which the run resumes. Later steps that are already there are hidden.
    """

    def __init__(self, folder: Path, done: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter  # torch imports the optional package tensorboard

        self._writer = SummaryWriter(str(folder / FOLDER), purge_step=done + 1)

    def log(self, metrics: Metrics, histograms: list[Histogram]) -> None:
        """Write a step."""
        step = int(metrics["step"])
        for key, value in metrics.items():
            if key != "step":
                self._writer.add_scalar(key, value, step)
        for each in histograms:
            self._add_histogram(each, step)
        self._writer.flush()

    def alert(self, fired: Fired) -> None:
        """Write the text of an alarm."""
        self._writer.add_text(f"alarms/{fired.name}", fired.message, fired.step)

    def close(self) -> None:
        """Close the files."""
        self._writer.close()

    def _add_histogram(self, histogram: Histogram, step: int) -> None:
        edges, counts = np.array(histogram.edges), np.array(histogram.counts)
        centres = (edges[1:] + edges[:-1]) / 2
        self._writer.add_histogram_raw(
            histogram.key,
            min=float(edges[0]),
            max=float(edges[-1]),
            num=int(counts.sum()),
            sum=float((counts * centres).sum()),
            sum_squares=float((counts * centres**2).sum()),
            bucket_limits=edges[1:].tolist(),
            bucket_counts=counts.tolist(),
            global_step=step,
        )
