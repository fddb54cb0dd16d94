"""Log to wandb with the same keys as metrics.jsonl."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import wandb

from rlsync.config.telemetry import TelemetryConfig, WandbMode
from rlsync.telemetry.metrics import Metrics

_SECTIONS = (
    "reward",
    "response",
    "rollout",
    "environment",
    "train",
    "critic",
    "parity",
    "eval",
    "time",
    "perf",
    "memory",
)


class WandbSink:
    """One wandb run; it does nothing with telemetry.wandb=disabled.

    Args:
        config: Mode, project and entity.
        name: Name of the run.
        folder: The run folder, in which wandb keeps its files.
        run_config: The run's configuration without secrets.
        run_id: Id of the wandb run to resume, or None for a new one.
    """

    def __init__(
        self, config: TelemetryConfig, name: str, folder: Path, run_config: dict[str, Any], run_id: str | None = None
    ) -> None:
        self._run: Any = None
        if config.wandb is WandbMode.disabled:
            return
        online = config.wandb is WandbMode.online or (config.wandb is WandbMode.auto and _logged_in())
        self._run = wandb.init(
            project=config.project,
            entity=config.entity,
            name=name,
            id=run_id,
            resume="allow" if run_id else None,
            dir=folder,
            config=run_config,
            mode="online" if online else "offline",
            settings=wandb.Settings(console="off", silent=True, quiet=True, x_disable_stats=not online),
        )
        self._run.define_metric("step")
        for section in _SECTIONS:
            self._run.define_metric(f"{section}/*", step_metric="step")

    @property
    def run_id(self) -> str | None:
        """Id of the wandb run; None if wandb is disabled."""
        return None if self._run is None else self._run.id

    def log(self, metrics: Metrics) -> None:
        """Log the metrics of a step."""
        if self._run is not None:
            self._run.log(metrics)

    def finish(self, exit_code: int) -> None:
        """End the wandb run; an exit code other than 0 marks it as failed."""
        if self._run is not None:
            self._run.finish(exit_code=exit_code)


def _logged_in() -> bool:
    """Whether wandb has credentials; the user is not asked for them."""
    try:
        return bool(wandb.login(prompt=False))
    except wandb.errors.UsageError:
        return False
