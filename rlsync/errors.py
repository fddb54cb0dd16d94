"""Errors that a user sees. All pickle cleanly, so Ray hands them to the driver as they are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlsync.redact import redacted


class RlsyncError(Exception):
    """Base of every error that is reported as one message, without a traceback, and without secrets in its URLs."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        self.message = redacted(message)
        super().__init__(self.message)

    def __reduce__(self) -> tuple[type[RlsyncError], tuple[str]]:
        return type(self), (self.message,)


class ConfigError(RlsyncError, ValueError):
    """A value that the user gave is wrong; the message names it and the fix."""

    exit_code = 2


class DataError(ConfigError):
    """A data set lacks what the run needs."""


class RewardError(RlsyncError):
    """The reward function failed on every sample of a step."""


class EnvironmentFailedError(RlsyncError):
    """The environment failed in every conversation of a batch."""


class DivergenceError(RlsyncError):
    """Rollout and trainer do not hold the same bits."""

    exit_code = 3


class WorkerDiedError(RlsyncError):
    """A trainer rank or a rollout worker ended while the run needed it."""

    exit_code = 4


class NonFiniteError(RlsyncError):
    """A gradient or a log-prob is NaN or infinite and the policy is to stop."""

    exit_code = 5


def in_one_line(message: str) -> str:
    """A message that holds what a user or a library wrote, as one line: no control characters, no endless words."""
    line = re.sub(r"\s*[\r\n]\s*", " ", message)
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    return re.sub(r"\S{200,}", lambda word: word[0][:80] + "...", line)


def unreadable(path: Path, what: str, why: str, weights: str) -> ConfigError:
    """Of what a resume needs of the run's folder.

    Args:
        what: it ought to be.
        weights: the folder of the ones to begin with instead.
    """
    return ConfigError(
        f"run.resume=true: {path} does not read as {what} ({why}). Put it back as the run wrote it, or begin with the "
        f"weights, in another run.dir: model.path={weights}"
    )


@contextmanager
def told_of(what: str) -> Iterator[None]:
    """Name `what` in front of the message of a ConfigError or DataError that is raised inside."""
    try:
        yield
    except ConfigError as error:
        raise type(error)(f"{what}: {error.message}") from error
