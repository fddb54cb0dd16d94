"""wandb with the same keys as metrics.jsonl; offline unless the user is logged in."""

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
    """One wandb run; does nothing when telemetry.wandb=disabled.

    Args:
        run_id: of the run to go on with.
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
        return None if self._run is None else self._run.id

    def log(self, metrics: Metrics) -> None:
        if self._run is not None:
            self._run.log(metrics)

    def finish(self, exit_code: int) -> None:
        if self._run is not None:
            self._run.finish(exit_code=exit_code)


def _logged_in() -> bool:
    """Whether wandb has credentials here; asks nobody for them."""
    try:
        return bool(wandb.login(prompt=False))
    except wandb.errors.UsageError:
        return False
