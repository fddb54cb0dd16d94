"""Run untrusted Python in processes that have no network, no access to other processes and no files but their own."""

from __future__ import annotations

import contextlib
import functools
import json
import secrets
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from rlsync.errors import ConfigError
from rlsync.sandbox.child import Role
from rlsync.sandbox.examine import Examination
from rlsync.sandbox.scratch import overfull, scratch_folder
from rlsync.sandbox.start import (
    FILE_BYTES,
    Files,
    Limits,
    Pipe,
    Process,
    SandboxError,
    Wires,
    rules_of,
    started,
    temporary,
    text_of,
)
from rlsync.sandbox.usage import usage_of

_POLL_S = 0.02
_MOST_THREADS = 64
_WALL_FACTOR, _WALL_EXTRA_S = 10, 20
"""The wall-clock limit is this factor times Limits.seconds plus this many seconds, generous for a busy machine."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """Result of a program's run."""

    exit_code: int
    """0 if the program ended without an exception; if negative, the signal that ended it."""
    stopped: bool
    """Whether it was killed, because it exceeded a limit of time, of threads, or of the size of its folder."""
    stdout: str
    stderr: str


def run_python(source: str, stdin: str, limits: Limits, *, output_bytes: int = FILE_BYTES) -> Outcome:
    """Run a program until it ends or exceeds a limit.

    Args:
        source: Text of the program.
        stdin: Its standard input.
        limits: Its limits.
        output_bytes: Longest standard output that the program may need to write.

    Raises:
        SandboxError: The program could not be started.
    """
    with temporary(stdin) as given, temporary() as out, temporary() as err, scratch_folder() as folder:
        rules = rules_of(limits, folder=str(folder), file_bytes=max(FILE_BYTES, output_bytes))
        files = Files(stdin=given, stdout=out, stderr=err)
        with started(Role.program, source, rules, files=files) as process:
            stopped = _watch([process], limits)
            process.end()
        return Outcome(exit_code=process.popen.returncode, stopped=stopped, stdout=text_of(out), stderr=text_of(err))


def run_tests(source: str, examination: Examination, limits: Limits) -> list[bool]:
    """Return which tests of an examination a program passes; empty if the tests did not complete.

    The program and the tests run in two confined processes, which exchange plain data over pipes.

    Raises:
        SandboxError: A process could not be started.
    """
    examination = replace(examination, nonce=secrets.token_hex(16))
    with ExitStack() as stack:
        result, folder = stack.enter_context(temporary()), stack.enter_context(scratch_folder())
        with (
            Pipe() as to_program,
            Pipe() as to_tests,
        ):  # closed in this process, so that each side notices if the other ends
            wires = Wires(incoming=to_program.read, outgoing=to_tests.write)
            program = started(Role.served, source, rules_of(limits, folder=str(folder)), wires=wires)
            serving = stack.enter_context(program)
            wires = Wires(incoming=to_tests.read, outgoing=to_program.write, result=result.fileno())
            tests = started(Role.tests, examination.to_json(), rules_of(limits), wires=wires)
            testing = stack.enter_context(tests)
        stopped = _watch([testing, serving], limits)
        serving.end()
        if stopped:  # possibly because of the program, before the tests had begun
            return []
        testing.end()
        return _passed(text_of(result), examination)


@functools.cache
def check_available() -> None:
    """Check that this machine can confine a process.

    Raises:
        ConfigError: It cannot.
    """
    try:
        outcome = run_python("import socket\nsocket.socket()", "", Limits())
    except (OSError, SandboxError) as error:
        raise ConfigError(f"{_REFUSAL} ({error})") from error
    if "PermissionError" not in outcome.stderr:
        raise ConfigError(f"{_REFUSAL} (a socket could be opened)")


_REFUSAL = (
    "reward.kind=code and some tasks run the model's text as a program, but this machine cannot confine programs: that "
    "needs Linux on x86-64 with Landlock (5.13) and seccomp. Use another reward, or a kernel that has them."
)


def _watch(processes: list[Process], limits: Limits) -> bool:
    """Wait for the end of the first process, and return whether any process exceeded a limit before."""
    began = last = time.monotonic()
    cpu_before, slept = 0.0, 0.0
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            processes[0].popen.wait(timeout=_POLL_S)
            return False
        now = time.monotonic()
        usages = [usage for process in processes if (usage := usage_of(process.popen.pid))]
        cpu = sum(usage.cpu_s for usage in usages)
        if all(usage.asleep for usage in usages) and cpu == cpu_before:
            slept += now - last
        last, cpu_before = now, cpu
        if (
            slept > limits.seconds
            or any(usage.cpu_s > limits.seconds or usage.threads > _MOST_THREADS for usage in usages)
            or now - began > _WALL_FACTOR * limits.seconds + _WALL_EXTRA_S
            or any(process.folder and overfull(Path(process.folder)) for process in processes)
        ):
            return True


def _passed(result: str, examination: Examination) -> list[bool]:
    try:
        outcome = json.loads(result)
    except ValueError:
        return []
    return outcome["passed"] if outcome["nonce"] == examination.nonce else []
