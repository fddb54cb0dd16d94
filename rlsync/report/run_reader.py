"""Reads a run folder for a report, also while the run goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from rlsync.errors import ConfigError
from rlsync.report.lines import LineReader, parse
from rlsync.report.metric_table import MetricReader, number
from rlsync.report.rollout_index import RolloutIndex
from rlsync.report.tokens import Pieces, find_pieces
from rlsync.telemetry.names import CONFIG, METRICS, ROLLOUTS, SUMMARY
from rlsync.telemetry.run_lock import is_held

_EVALUATION = "eval.json"
_LONGEST_VALUE = 2000
"""Characters of a value of the configuration."""
_PROBED = 3
"""Number of rollouts that a tokenizer must explain."""


class RunReader:
    """Reads a run folder.

    Args:
        path: The folder.

    Raises:
        ConfigError: The folder is not that of a training run, or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        _check(path)
        self.path = path
        self.metrics = MetricReader(path / METRICS)
        self.rollouts = RolloutIndex(path / ROLLOUTS)
        self.config: dict[str, str] = {}
        self.config_error = False
        """Whether config.yaml is there but cannot be read."""

    def update(self) -> bool:
        """Read what was added, and return whether there was anything.

        Raises:
            ConfigError: A file cannot be read.
        """
        before = (self.restarts, len(self.rollouts.entries), self.config)
        try:
            grown = self.metrics.update()
            self.rollouts.update()
            self._read_config()
        except OSError as error:
            raise ConfigError(
                f"{error.filename}: cannot be read ({error.strerror}). Correct its permissions"
            ) from error
        return grown or before != (self.restarts, len(self.rollouts.entries), self.config)

    @property
    def restarts(self) -> int:
        """How often a file was found cut off or rewritten."""
        return self.metrics.lines.restarts + self.rollouts.lines.restarts

    @property
    def complete(self) -> bool:
        """Whether the run has completed all its steps."""
        return (self.path / SUMMARY).is_file()

    @property
    def running(self) -> bool:
        """Whether a process on this machine writes to the folder."""
        return is_held(self.path)

    @property
    def seconds(self) -> float | None:
        """Duration of a complete run, in seconds."""
        try:
            summary = parse((self.path / SUMMARY).read_bytes()) or {}
        except OSError:
            return None
        seconds = number(summary.get("seconds"))
        return None if seconds is None else float(seconds)

    def pieces(self) -> Pieces | None:
        """Return the texts of the run's tokens; None without rollouts or without their tokenizer."""
        chosen = range(min(_PROBED, len(self.rollouts.entries)))
        lines = [line for _, line in self.rollouts.read(chosen)] if chosen else []
        return find_pieces(self.path, self.config, lines) if lines else None

    def notes(self) -> list[str]:
        """Return sentences about what is missing or could not be read."""
        notes = []
        if self.config_error:
            notes.append(f"{CONFIG} cannot be read as YAML, so the configuration is not shown.")
        elif not self.config:
            notes.append(f"There is no {CONFIG}, so the configuration is not shown.")
        if not self.rollouts.path.is_file():
            notes.append(f"There is no {ROLLOUTS}: the run does not save its rollouts (telemetry.save_rollouts=false).")
        notes += _about(self.metrics.lines, self.metrics.unreadable)
        notes += _about(self.rollouts.lines, self.rollouts.unreadable)
        return notes

    def _read_config(self) -> None:
        path = self.path / CONFIG
        if self.config or not path.is_file():
            return
        try:
            tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
            tree = None
        self.config_error = not isinstance(tree, dict)
        self.config = dict(_flat(tree)) if isinstance(tree, dict) else {}


def _check(path: Path) -> None:
    if not path.is_dir():
        why = "is a file" if path.exists() else "does not exist"
        raise ConfigError(f"{path} {why}. Give the folder of a run, such as runs/NAME")
    if (path / CONFIG).is_file() or (path / METRICS).is_file():
        return
    if (path / _EVALUATION).is_file():
        raise ConfigError(
            f"{path} is the folder of an evaluation. Give the folder of a training run, such as runs/NAME"
        )
    raise ConfigError(
        f"{path} is not the folder of a training run, or its run has not begun its first step: it has neither {CONFIG} "
        f"nor {METRICS}. Give a folder that `rlsync train` has written, such as runs/NAME"
    )


def _flat(tree: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield each value of a configuration under its dotted key, as text."""
    if isinstance(tree, dict) and tree:
        for name, value in tree.items():
            yield from _flat(value, f"{key}.{name}" if key else str(name))
        return
    text = {None: "null", True: "true", False: "false"}.get(tree) if tree is None or isinstance(tree, bool) else None
    yield key, (text or str(tree))[:_LONGEST_VALUE]


def _about(lines: LineReader, unreadable: int) -> list[str]:
    name, notes = lines.path.name, []
    if unreadable:
        what, them = ("1 line", "it") if unreadable == 1 else (f"{unreadable} lines", "them")
        notes.append(f"{what} of {name} cannot be read, and the report leaves {them} out.")
    if lines.unfinished:
        notes.append(f"The last line of {name} is unfinished, and the report leaves it out.")
    return notes
