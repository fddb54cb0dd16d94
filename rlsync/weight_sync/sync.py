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
    """For each engine, the digests of all its workers' shards."""


class Transfer(Protocol):
    """Transfers weights from the trainer ranks to the engines; cluster/groups.py implements it."""

    def transfer_weights(self, version: int, fault: Fault) -> Transferred:
        """Send the trainer's weights to every engine.

        Args:
            version: their version, which the engines record for the tokens that they sample with them.
            fault: a fault to plant in the last worker of each engine.
        """
        ...


class WeightSync:
    """Keeps the engines' weights up to date, and is the one owner of their version.

    The version is the number of training steps that the weights have been through. Engines and trainer ranks are told
    the version and do not count themselves.

    Args:
        transfer: transfers the weights.
    """

    def __init__(self, transfer: Transfer) -> None:
        self._transfer = transfer
        self.version = _NEVER
        """The version that the engines hold; -1 before the first transfer."""
        self._different: list[str] = []

    def run(self, version: int, fault: Fault = Fault.none) -> list[str]:
        """Bring the engines to `version`, which the trainer holds. Nothing is sent if they have it already.

        Args:
            version: version of the trainer's weights.
            fault: a fault to plant, for tests of the digests and the monitor.

        Returns:
            The names of the tensors whose digests differ between the trainer and an engine, or among its workers.
        """
        if version != self.version:
            digests = self._transfer.transfer_weights(version, fault)
            self.version = version
            trainer, engines = combine(digests.trainer), [combine(engine) for engine in digests.engines]
            self._different = sorted({name for engine in engines for name in differing(trainer, engine)})
        return self._different
