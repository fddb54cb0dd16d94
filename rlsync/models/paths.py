"""Where the models of a run are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True, frozen=True)
class ModelPaths:
    """Folder or hub id of each model of a run, as every process finds it."""

    policy: str
    critic: str = ""
    """What the critic starts from; empty without one."""
    reference: str = ""
    """The model that the KL divergence is measured from; empty without one."""
