"""Run a job in confined worker processes, because it may interpret the model's text in dangerous ways."""

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
"""resource.RLIM_INFINITY: a worker serves many requests, each of which has its own limit."""


class ConfinedJob:
    """Calls the job that `maker` makes, with at most `size` concurrent calls.

    Args:
        maker: Makes the job, as in WorkerKind.
        argument: Argument of the maker.
        cpu_s: CPU time that a request may take in seconds; 0 = DEFAULT_CPU_S.
        fresh: Use a new process for each request.
        required: Refuse a machine that cannot confine processes. It is False for jobs that never run text as code, for
            which confinement is a second line of defence.

    Raises:
        ConfigError: The kernel cannot confine processes, and it is required.
    """

    def __init__(
        self, maker: str, argument: Any, *, cpu_s: float = 0.0, fresh: bool = False, required: bool = True
    ) -> None:
        self.size = usable_cores()
        rules = _rules(required=required)
        kind = WorkerKind(maker=maker, argument=argument, cpu_s=cpu_s or DEFAULT_CPU_S, rules=rules)
        self._pool = WorkerPool(kind, self.size, fresh=fresh)

    def __call__(self, request: Any, *, otherwise: Any) -> Any:
        """Return the job's value, or `otherwise` if the request takes too long or its process dies.

        Raises:
            WorkerError: The job raised an exception, or no process could be started.
        """
        try:
            return self._pool.call(request)
        except (WorkerTimeoutError, WorkerLostError) as error:
            logger.warning("scoring %.300r: %s; the sample counts as wrong", request, error)
            return otherwise

    def close(self) -> None:
        """End the processes; the next call starts new ones."""
        self._pool.close()


def _rules(*, required: bool) -> Confinement | None:
    try:
        check_available()
    except ConfigError as error:
        if required:
            raise
        logger.warning("rewards run in processes with limits but without confinement: %s", error.message)
        return None
    return replace(rules_of(Limits(memory_mib=_MEMORY_MIB), file_bytes=0), cpu_s=_NO_LIMIT)
