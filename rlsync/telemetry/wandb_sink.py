"""Log to wandb with the same keys as metrics.jsonl, and histograms, samples and alarms."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import wandb

from rlsync.config.alarms import SECTIONS
from rlsync.config.telemetry import WandbMode
from rlsync.errors import ConfigError, first_line
from rlsync.redact import redacted
from rlsync.telemetry.alarms import Fired
from rlsync.telemetry.histograms import Histogram
from rlsync.telemetry.metrics import Metrics
from rlsync.telemetry.sample_table import COLUMNS, SampleRow
from rlsync.telemetry.wandb_mode import WandbChoice

_INIT_S = 30.0
"""Longest wait for wandb's server to accept the run."""
_BEST_AND_LAST = ("reward/mean", "eval/accuracy")
"""Metrics whose maximum is part of wandb's summary, besides the last value."""
_SYNC = "wandb sync "
_TABLE = "samples/table"
_OWN_SECTIONS = ("alarms", "samples")


@dataclass(slots=True, frozen=True, kw_only=True)
class RunDescription:
    """What wandb shows about a run."""

    project: str
    entity: str | None
    name: str
    folder: Path
    """The run folder, in which wandb keeps its files."""
    config: dict[str, Any] = field(default_factory=dict)
    """The run's configuration and provenance, without secrets."""
    run_id: str | None = None
    """Id of the wandb run to resume; None for a new one."""
    tags: list[str] = field(default_factory=list)
    notes: str = ""
    """The command line, without secrets."""


def wandb_line(place: str) -> str:
    """Return the line that tells the user where a run is, `WandbSink.place`."""
    return f"wandb: offline; to upload the run: {place}" if place.startswith(_SYNC) else f"wandb: {place}"


class WandbSink:
    """One wandb run; it does nothing if wandb is disabled.

    Args:
        choice: Where the metrics go.
        about: The run; None if wandb is disabled.
        say: Tells the user that the run goes on offline.

    Raises:
        ConfigError: The user asked for online, and the server does not accept the run.
    """

    def __init__(self, choice: WandbChoice, about: RunDescription | None, say: Callable[[str], None]) -> None:
        self._run: Any = None
        if choice.mode is WandbMode.disabled or about is None:
            return
        self._resumed = about.run_id is not None
        self._run = _start(choice, about, say)
        self._run.define_metric("step")
        for section in (*SECTIONS, *_OWN_SECTIONS):
            self._run.define_metric(f"{section}/*", step_metric="step")
        for key in _BEST_AND_LAST:
            self._run.define_metric(key, step_metric="step", summary="max,last")

    @property
    def run_id(self) -> str | None:
        """Id of the wandb run; None if wandb is disabled."""
        return None if self._run is None else self._run.id

    @property
    def entity(self) -> str | None:
        """User or team of an online run, who may be the account's default; None if the run is not online."""
        return None if self._run is None or self._run.offline else str(self._run.entity)

    @property
    def place(self) -> str:
        """Where the run is: its address, or the command that uploads an offline run; empty if wandb is disabled."""
        if self._run is None:
            return ""
        if not self._run.offline:
            return str(self._run.url)
        folder = Path(self._run.settings.sync_dir)
        if self._resumed:  # the parts of a resumed run are uploaded together, in their order
            return f"{_SYNC}{shlex.quote(str(folder.parent))}/*-{self._run.id}"
        return f"{_SYNC}{shlex.quote(str(folder))}"

    def log(self, metrics: Metrics, histograms: list[Histogram], samples: list[SampleRow]) -> None:
        """Log a step; an empty list of samples makes no table."""
        if self._run is None:
            return
        row: dict[str, Any] = dict(metrics)
        for each in histograms:
            row[each.key] = wandb.Histogram(np_histogram=(np.array(each.counts), np.array(each.edges)))
        if samples:
            row[_TABLE] = wandb.Table(columns=[*COLUMNS], data=[sample.cells() for sample in samples])
        self._run.log(row)

    def alert(self, fired: Fired) -> None:
        """Send an alert about an alarm. An offline run sends it when it is synced."""
        if self._run is not None:
            self._run.alert(title=f"rlsync: {fired.name}", text=fired.message, level="WARN")

    def finish(self, exit_code: int) -> None:
        """End the wandb run; an exit code other than 0 marks it as failed."""
        if self._run is not None:
            self._run.finish(exit_code=exit_code)


def _start(choice: WandbChoice, about: RunDescription, say: Callable[[str], None]) -> Any:
    """Start the wandb run, offline if its server does not accept it and the user did not ask for online."""
    if choice.mode is WandbMode.offline:
        return _init(about, "offline")
    try:
        return _init(about, "online")
    except (wandb.errors.Error, OSError) as error:
        why = redacted(first_line(error))
        if choice.required:
            raise ConfigError(
                f"wandb's server does not accept the run in project {about.project} of entity {about.entity} ({why}). "
                "Check telemetry.project and telemetry.entity, or use telemetry.wandb=offline."
            ) from error
        say(f"wandb is offline, because its server does not accept the run ({why})")
        wandb.teardown()
        return _init(about, "offline")


def _init(about: RunDescription, mode: Literal["online", "offline"]) -> Any:
    online = mode == "online"
    with _shown_arguments():
        return wandb.init(
            project=about.project,
            entity=about.entity,
            name=about.name,
            id=about.run_id,
            resume="allow" if about.run_id else None,
            dir=about.folder,
            config=about.config,
            tags=about.tags,
            notes=about.notes or None,
            mode=mode,
            settings=wandb.Settings(
                console="off", silent=True, quiet=True, x_disable_stats=not online, init_timeout=_INIT_S
            ),
        )


@contextmanager
def _shown_arguments() -> Iterator[None]:
    """Hide secrets in the process's arguments, which wandb copies when a run starts."""
    before = sys.argv
    sys.argv = [redacted(argument) for argument in before]
    try:
        yield
    finally:
        sys.argv = before
