"""Brings the trainer's weights to the rollout engines, and owns their version."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from rlsync.config.parity import Fault
from rlsync.weight_sync.digest import TensorDigest, combine, differing

_NEVER = -1


@dataclass(slots=True, kw_only=True)
class Transferred:
    """Digests of the weights on both sides of a transfer."""

    trainer: list[TensorDigest]
    """The digests of all trainer ranks' shards."""
    engines: list[list[TensorDigest]]
    """For each engine the digests of all its workers' shards."""


class Transfer(Protocol):
    def transfer_weights(self, version: int, fault: Fault) -> Transferred:
        """Send the trainer's weights to every engine, which stamps `version` on the tokens that it samples with them.

        Args:
            fault: a fault to plant in the last worker of each engine.
        """
        ...


class WeightSync:
    """The one owner of the weights' version: the number of training steps that made them.

    Engines and trainer ranks are told the version; neither counts.
    """

    def __init__(self, transfer: Transfer) -> None:
        self._transfer = transfer
        self.version = _NEVER
        """The version that the engines hold; -1 before the first transfer."""
        self._different: list[str] = []

    def run(self, version: int, fault: Fault = Fault.none) -> list[str]:
        """Bring the engines to `version`, which the trainer holds; nothing is sent if they have it.

        Returns:
            The names of the tensors whose digests differ between the trainer and an engine, or among its workers.
        """
        if version != self.version:
            digests = self._transfer.transfer_weights(version, fault)
            self.version = version
            trainer, engines = combine(digests.trainer), [combine(engine) for engine in digests.engines]
            self._different = sorted({name for engine in engines for name in differing(trainer, engine)})
        return self._different
