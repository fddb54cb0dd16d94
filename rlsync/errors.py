"""Errors that a user sees. They can be pickled, so Ray passes them to the driver unchanged."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlsync.redact import redacted


class RlsyncError(Exception):
    """Base class of errors that are reported as one message, without a traceback and without secrets in URLs."""

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
    """The reward function failed for every sample of a step."""


class EnvironmentFailedError(RlsyncError):
    """The environment failed in every conversation of a batch."""


class DivergenceError(RlsyncError):
    """Bits of rollout and trainer that ought to be equal differ."""

    exit_code = 3


class WorkerDiedError(RlsyncError):
    """A trainer rank or a rollout worker ended while the run needed it."""

    exit_code = 4


class RayStartError(RlsyncError):
    """Ray did not start on this machine."""


class NonFiniteError(RlsyncError):
    """A gradient or a log-prob is NaN or infinite, and trainer.nonfinite=stop."""

    exit_code = 5


class AlarmError(RlsyncError):
    """An alarm whose action is to stop the run has fired."""

    exit_code = 6


def in_one_line(message: str) -> str:
    """Return a message with text of a user or a library as one line, without control characters and very long words."""
    line = re.sub(r"\s*[\r\n]\s*", " ", message)
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    return re.sub(r"\S{200,}", lambda word: word[0][:80] + "...", line)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message that is not empty, or the name of its type."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def unreadable(path: Path, what: str, why: str, weights: str) -> ConfigError:
    """Make the error for a file of the run folder that a resume needs and cannot read.

    Args:
        path: The file.
        what: What the file should contain.
        why: Why it cannot be read.
        weights: Folder of weights from which a new run can start instead.
    """
    return ConfigError(
        f"run.resume=true: {path} cannot be read as {what} ({why}). Restore the file that the run wrote, or start a "
        f"new run from the weights, in another run.dir: model.path={weights}"
    )


@contextmanager
def error_context(what: str) -> Iterator[None]:
    """Name `what` in front of the message of a ConfigError or DataError that is raised inside."""
    try:
        yield
    except ConfigError as error:
        raise type(error)(f"{what}: {error.message}") from error
