"""A job in confined worker processes, for text of the model that its code reads in ways not proven harmless."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from rlsync.errors import ConfigError
from rlsync.rewards.cores import usable_cores
from rlsync.rewards.worker_host import WorkerKind
from rlsync.rewards.workers import WorkerLostError, WorkerPool, WorkerTimeoutError
from rlsync.sandbox.confine import Confinement
from rlsync.sandbox.run import check_available
from rlsync.sandbox.start import Limits, rules_of

logger = logging.getLogger(__name__)

DEFAULT_CPU_S = 3.0
_MEMORY_MIB = 4096
_NO_LIMIT = -1
"""resource.RLIM_INFINITY: a worker serves many requests, each with a bound of its own."""


class ConfinedJob:
    """Calls `maker`'s job, up to `size` at a time.

    Args:
        maker: as in WorkerKind.
        cpu_s: CPU time that a request may take; 0: DEFAULT_CPU_S.
        fresh: a process for each request.
        required: whether a machine that cannot confine processes is refused. Where it is not, the job is known to run
            no text as code, and confinement is a second line of defence.
    Raises:
        ConfigError: the kernel cannot confine processes, and it is required.
    """

    def __init__(
        self, maker: str, argument: Any, *, cpu_s: float = 0.0, fresh: bool = False, required: bool = True
    ) -> None:
        self.size = usable_cores()
        rules = _rules(required=required)
        kind = WorkerKind(maker=maker, argument=argument, cpu_s=cpu_s or DEFAULT_CPU_S, rules=rules)
        self._pool = WorkerPool(kind, self.size, fresh=fresh)

    def __call__(self, request: Any, *, otherwise: Any) -> Any:
        """The job's value, or `otherwise` for a request that takes longer than it may or ends its process.

        Raises:
            WorkerError: the job raised, or no process could be started.
        """
        try:
            return self._pool.call(request)
        except (WorkerTimeoutError, WorkerLostError) as error:
            logger.warning("scoring %.300r: %s; the sample counts as wrong", request, error)
            return otherwise

    def close(self) -> None:
        """End the processes; the next call starts others."""
        self._pool.close()


def _rules(*, required: bool) -> Confinement | None:
    try:
        check_available()
    except ConfigError as error:
        if required:
            raise
        logger.warning("rewards are computed in processes that are bounded but not confined: %s", error.message)
        return None
    return replace(rules_of(Limits(memory_mib=_MEMORY_MIB), file_bytes=0), cpu_s=_NO_LIMIT)
