"""Histograms of a step, for wandb and TensorBoard."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlsync.samples import Sample

_BINS = 32


@dataclass(slots=True, frozen=True, kw_only=True)
class Histogram:
    """Counts of values in bins."""

    key: str
    """Key beside those of the metrics, such as reward/histogram."""
    counts: list[int]
    edges: list[float]
    """Borders of the bins, one more than counts."""


def step_histograms(samples: list[Sample], ulps_by_power: list[int]) -> list[Histogram]:
    """Return the histograms of rewards, lengths and advantages and, if log-probs differ, of their differences.

    Args:
        samples: The samples that the step trained on.
        ulps_by_power: Number of tokens whose log-probs differ by 2^n to 2^(n+1) - 1 units in the last place; empty if
            none differ.
    """
    histograms = [
        _histogram("reward/histogram", [s.score.reward for s in samples if s.score.reward is not None]),
        _histogram("response/length_histogram", [s.rollout.num_sampled for s in samples]),
        _histogram("train/advantage_histogram", _advantages(samples)),
    ]
    found = [each for each in histograms if each is not None]
    if any(ulps_by_power):
        edges = [float(power) for power in range(len(ulps_by_power) + 1)]
        found.append(Histogram(key="parity/ulp_log2_histogram", counts=ulps_by_power, edges=edges))
    return found


def _advantages(samples: list[Sample]) -> np.ndarray:
    """Return one advantage for each response or, with a critic, for each sampled token."""
    parts = []
    for sample in samples:
        if sample.advantage is not None and sample.trained:
            own = sample.advantage[sample.rollout.sampled].numpy()
            parts.append(own if sample.value is not None else own[:1])
    return np.concatenate(parts) if parts else np.zeros(0)


def _histogram(key: str, values: list[float] | list[int] | np.ndarray) -> Histogram | None:
    array = np.asarray(values, dtype=np.float64)
    array = array[np.isfinite(array)]
    if not array.size:
        return None
    counts, edges = np.histogram(array, bins=_BINS)
    return Histogram(key=key, counts=counts.tolist(), edges=edges.tolist())
