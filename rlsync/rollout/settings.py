"""The part of a run's configuration that rollout engines read; importing it does not import vLLM."""

from __future__ import annotations

from dataclasses import dataclass

from rlsync.config.rollout import RolloutConfig
from rlsync.models.settings import ModelSettings


@dataclass(slots=True, kw_only=True, frozen=True)
class EngineSettings(ModelSettings):
    """The settings of a rollout engine, which are the same for all engines."""

    model_path: str
    """Folder or hub id from which the engine loads its first weights."""
    rollout: RolloutConfig
