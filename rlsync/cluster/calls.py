"""Wait for calls of actors, and turn failures into readable errors."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError

from rlsync.errors import RlsyncError, WorkerDiedError

_POLL_S = 1.0
_BLAME_S = 5.0
"""Seconds that an actor's failure is held back, in case the death of another process explains it."""


@dataclass(slots=True, frozen=True)
class Member:
    """An actor and its name for messages."""

    name: str
    handle: Any


class _OwnError(WorkerDiedError):
    """An actor raised an exception of its own, possibly because another process has died."""


def gather(calls: Sequence[tuple[Member, Any]], *, stage: str, timeout_s: float) -> list[Any]:
    """Wait for remote calls, and return their results in order.

    The first failure is raised at once, even if other calls still run. Only an exception that is not an RlsyncError is
    held back for a few seconds, because the death of another process may be its cause and is then reported instead.

    Args:
        calls: Actors, each with the reference of its call.
        stage: Name of the stage, for messages.
        timeout_s: Longest wait for all calls in seconds.

    Raises:
        WorkerDiedError: An actor's process is gone, or the stage took longer than `timeout_s`.
        RlsyncError: An actor raised it.
    """
    waiting = _Waiting({ref: member for member, ref in calls}, stage, timeout_s)
    for ref, member in waiting:
        with waiting.blame():
            waiting.ended(ref)
            _result(ref, member, stage)
    return [_result(ref, member, stage) for member, ref in calls]


def stream(calls: Sequence[tuple[Member, Any]], *, stage: str, timeout_s: float) -> Iterator[tuple[int, Any]]:
    """Yield the values of streaming calls as they arrive, each with its call's number.

    Raises the errors of `gather`.
    """
    numbers = {generator: number for number, (_, generator) in enumerate(calls)}
    waiting = _Waiting({generator: member for member, generator in calls}, stage, timeout_s)
    for generator, member in waiting:
        with waiting.blame():
            try:
                ref = next(generator)
            except StopIteration:
                waiting.ended(generator)
                continue
            value = _result(ref, member, stage)
            yield numbers[generator], value


class _Waiting:
    """Iterates over calls that have a result ready, until all calls have ended.

    The iteration ends with the errors of `gather`.
    """

    def __init__(self, pending: dict[Any, Member], stage: str, timeout_s: float) -> None:
        self._pending, self._stage, self._timeout_s = pending, stage, timeout_s
        self._deadline = time.monotonic() + timeout_s
        self._failure: _OwnError | None = None

    def __iter__(self) -> Iterator[tuple[Any, Member]]:
        while self._pending and time.monotonic() <= self._deadline:
            done, _ = ray.wait(list(self._pending), num_returns=1, timeout=_POLL_S)
            yield from [(each, self._pending[each]) for each in done]
        if self._failure:
            raise self._failure
        if self._pending:
            names = ", ".join(member.name for member in self._pending.values())
            raise WorkerDiedError(
                f"{self._stage}: no answer from {names} within {self._timeout_s:.0f} s (cluster.stage_timeout_s)"
            )

    def ended(self, each: Any) -> None:
        """Stop waiting for a call."""
        del self._pending[each]

    @contextmanager
    def blame(self) -> Iterator[None]:
        """Hold an actor's own exception back, unless the death of a process explains it in the meantime."""
        try:
            yield
        except _OwnError as error:
            self._failure = self._failure or error
            self._deadline = min(self._deadline, time.monotonic() + _BLAME_S)


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
