"""The paths of a run's models."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True, frozen=True)
class ModelPaths:
    """Resolved folder or hub id of each model of a run, which all its processes can load."""

    policy: str
    """The model that is trained."""
    critic: str = ""
    """The model that the critic starts from; empty without a critic."""
    reference: str = ""
    """The frozen model of the KL penalty; empty without a reference."""
