"""Wait for actors, with errors that a person can read."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError

from rlsync.errors import RlsyncError, WorkerDiedError

_POLL_S = 1.0
_BLAME_S = 5.0
"""How long a failure waits for the death of a peer that would explain it."""


@dataclass(slots=True, frozen=True)
class Member:
    """An actor with its name for messages."""

    name: str
    handle: Any


class _OwnError(WorkerDiedError):
    """An actor raised something of its own: perhaps because a peer is gone."""


def gather(calls: Sequence[tuple[Member, Any]], *, stage: str, timeout_s: float) -> list[Any]:
    """Results of remote calls, in order. The first failure is raised at once, whoever else still runs.

    A broken connection waits a little for news of who broke it.

    Raises:
        WorkerDiedError: an actor's process is gone, or the stage took longer than `timeout_s`.
        RlsyncError: whatever the actor raised, as itself.
    """
    pending = {ref: member for member, ref in calls}
    deadline = time.monotonic() + timeout_s
    failure: _OwnError | None = None
    while pending:
        done, _ = ray.wait(list(pending), num_returns=1, timeout=_POLL_S)
        for ref in done:
            try:
                _result(ref, pending.pop(ref), stage)
            except _OwnError as error:
                failure = failure or error
                deadline = min(deadline, time.monotonic() + _BLAME_S)
        if time.monotonic() > deadline:
            break
    if failure:
        raise failure
    if pending:
        names = ", ".join(member.name for member in pending.values())
        raise WorkerDiedError(f"{stage}: no answer from {names} within {timeout_s:.0f} s (cluster.stage_timeout_s)")
    return [_result(ref, member, stage) for member, ref in calls]


def _result(ref: Any, member: Member, stage: str) -> Any:
    try:
        return ray.get(ref)
    except (ActorDiedError, ActorUnavailableError) as error:
        raise WorkerDiedError(
            f"{member.name} died during {stage}: its process is gone (killed, out of memory, or crashed). "
            "The run has ended; its metrics and saved weights are complete up to the step before."
        ) from error
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, RlsyncError):
            raise cause from None
        raise _OwnError(f"{member.name} failed during {stage}: {type(cause).__name__}: {cause}\n{error}") from None
