"""The part of a page's data that its first view needs: facts, metrics and settings of every run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from rlsync import __version__
from rlsync.report.metric_table import COMPARED, DIFFERENT, MetricTable, Value
from rlsync.report.packing import Packed
from rlsync.report.run_reader import RunReader

_STAGES_SUM = "time/step"


@dataclass(slots=True, kw_only=True)
class RolloutsView:
    """How many rollouts a run has, and what the page holds of them."""

    total: int
    listed: int
    detailed: int
    text_limit: int
    row_chunks: int
    tokenizer: bool


@dataclass(slots=True, kw_only=True)
class RunView:
    """What the page shows of a run."""

    name: str
    state: str
    """complete, running or stopped."""
    config: dict[str, str]
    notes: list[str]
    steps: list[int]
    metrics: dict[str, list[Value]]
    steps_done: int
    """Number of steps that metrics.jsonl has, of which `steps` may be a part."""
    steps_planned: int
    seconds: float
    compared: float
    different: float
    rollouts: RolloutsView


@dataclass(slots=True, kw_only=True)
class Core:
    """What the page shows of all runs."""

    version: str = __version__
    live: bool = False
    runs: list[RunView] = field(default_factory=list)


def run_view(reader: RunReader, name: str, packed: Packed, *, tokenizer: bool, most_steps: int) -> RunView:
    """Return what the page shows of a run.

    Args:
        reader: The run, read to its end.
        name: The run's name in the report.
        packed: Its rollouts.
        tokenizer: Whether the texts of tokens are known.
        most_steps: About the largest number of steps that the metrics may have.
    """
    table, config = reader.metrics.table(), reader.config
    thin, planned = table.thinned(most_steps), config.get("trainer.steps", "")
    return RunView(
        name=name,
        state="complete" if reader.complete else "running" if reader.running else "stopped",
        config=config,
        notes=[*reader.notes(), *_left_out(table, thin)],
        steps=thin.steps,
        metrics=thin.columns,
        steps_done=len(table.steps),
        steps_planned=int(planned) if planned.isdecimal() else 0,
        seconds=reader.seconds or sum(table.numbers(_STAGES_SUM)),
        compared=sum(table.numbers(COMPARED)),
        different=sum(table.numbers(DIFFERENT)),
        rollouts=RolloutsView(
            total=packed.total,
            listed=packed.listed,
            detailed=packed.detailed,
            text_limit=packed.text_limit,
            row_chunks=len(packed.rows),
            tokenizer=tokenizer,
        ),
    )


def names(readers: list[RunReader]) -> list[str]:
    """Return a name for each run, with the folder's name or a number where two runs have one name."""
    own = [reader.config.get("run.name") or _folder(reader.path) for reader in readers]
    longer = [
        name if own.count(name) == 1 else f"{name} ({_folder(reader.path)})"
        for name, reader in zip(own, readers, strict=True)
    ]
    return [
        name if longer.count(name) == 1 else f"{name} #{longer[: place + 1].count(name)}"
        for place, name in enumerate(longer)
    ]


def _folder(path: Path) -> str:
    return path.resolve().name


def _left_out(table: MetricTable, thin: MetricTable) -> list[str]:
    if len(thin.steps) == len(table.steps):
        return []
    return [
        f"The charts show {len(thin.steps):,} of {len(table.steps):,} steps: evenly spaced ones, and those that "
        "diverged. Totals count all steps."
    ]
