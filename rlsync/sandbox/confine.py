"""Confine this process before it runs untrusted Python. This file imports only the standard library.

The kernel enforces the rules, not Python: Landlock (files), a seccomp allow-list (system calls) and resource limits. So
they also hold for ctypes and raw system calls.
"""

import ctypes
import os
import resource
import signal
import struct
import sys
from dataclasses import dataclass

_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 1, 38, 22, 2
_READ_FILE, _READ_DIRECTORY = 1 << 2, 1 << 3
_ALL_BY_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
NEWEST_ABI = max(_ALL_BY_ABI)
_SYSTEM = (
    "/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache", "/etc/localtime",
    "/dev/null", "/dev/urandom",
)  # fmt: skip

# System call numbers of x86-64: read and write, memory, time, threads, files (which Landlock confines) and pipes. No
# call starts a program or a process, opens a socket, affects another process, or changes an owner, a mode or a limit.
_ALLOWED = (
    0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 17, 18, 19, 20, 21, 22, 23, 24, 25, 28, 32, 33, 34, 35, 36,
    37, 38, 39, 60, 63, 73, 74, 75, 77, 78, 79, 80, 81, 82, 83, 84, 87, 89, 95, 96, 97, 98, 99, 100, 102, 104, 107,
    108, 110, 111, 131, 158, 186, 201, 202, 204, 217, 218, 228, 229, 230, 231, 232, 233, 258, 262, 263, 264,
    267, 269, 270, 271, 273, 281, 290, 291, 292, 293, 295, 296, 309, 316, 318, 324, 332, 334, 439,
)  # fmt: skip
_CLONE, _CLONE3, _TGKILL, _PRLIMIT, _IOCTL, _FCNTL, _OPEN, _OPENAT = 56, 435, 234, 302, 16, 72, 2, 257
_CLONE_THREAD = 0x00010000
_IOCTLS = (0x5401, 0x5421, 0x5451, 0x541B)  # is a terminal?, non-blocking, close on exec, bytes to read
_FCNTLS = (0, 1, 2, 3, 4, 5, 6, 7, 1030)  # duplicates, flags, locks; not F_SETOWN, whose signals reach other processes
_ARCH_X86_64 = 0xC000003E
_ALLOW, _KILL, _EPERM, _ENOSYS = 0x7FFF0000, 0x80000000, 0x00050000 | 1, 0x00050000 | 38
_LOAD, _AND, _EQUAL, _HAS, _RETURN = 0x20, 0x54, 0x15, 0x45, 0x06

_libc = ctypes.CDLL(None, use_errno=True)


def _step(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("HBBI", code, yes, no, value)


def _argument(index: int) -> int:
    """Return the offset of the low half of a system call's argument in struct seccomp_data."""
    return 16 + 8 * index


def _filter() -> bytes:
    """Return the seccomp program: a sequence of comparisons, each followed by the value to return."""
    steps = [_step(_LOAD, 4), _step(_EQUAL, _ARCH_X86_64, 1, 0), _step(_RETURN, _KILL), _step(_LOAD, 0)]

    def rule(number: int, body: list[bytes]) -> None:
        steps.extend([_step(_EQUAL, number, 0, len(body)), *body])

    rule(
        _CLONE3, [_step(_RETURN, _ENOSYS)]
    )  # its flags are in memory, which seccomp cannot read; the C library falls back to clone
    rule(_CLONE, [_step(_LOAD, _argument(0)), _step(_HAS, _CLONE_THREAD, 0, 1), _step(_RETURN, _ALLOW),
                  _step(_RETURN, _EPERM)])  # fmt: skip
    rule(_TGKILL, [_step(_LOAD, _argument(0)), _step(_EQUAL, os.getpid(), 0, 1), _step(_RETURN, _ALLOW),
                   _step(_RETURN, _EPERM)])  # fmt: skip
    rule(_PRLIMIT, [_step(_LOAD, _argument(2)), _step(_EQUAL, 0, 0, 3), _step(_LOAD, _argument(2) + 4),
                    _step(_EQUAL, 0, 0, 1), _step(_RETURN, _ALLOW), _step(_RETURN, _EPERM)])  # fmt: skip
    for number, requests in ((_IOCTL, _IOCTLS), (_FCNTL, _FCNTLS)):
        tests = [_step(_EQUAL, request, len(requests) - i, 0) for i, request in enumerate(requests)]
        rule(number, [_step(_LOAD, _argument(1)), *tests, _step(_RETURN, _EPERM), _step(_RETURN, _ALLOW)])
    # Before version 3, Landlock does not restrict truncation. A file that is opened for writing is covered by its other
    # rules, but O_TRUNC with O_RDONLY, or with access mode 3, would empty any file that may be read.
    for number, flags in ((_OPEN, 1), (_OPENAT, 2)):
        rule(number, [_step(_LOAD, _argument(flags)), _step(_HAS, os.O_TRUNC, 0, 3), _step(_AND, os.O_ACCMODE),
                      _step(_EQUAL, os.O_WRONLY, 1, 0), _step(_EQUAL, os.O_RDWR, 0, 1), _step(_RETURN, _ALLOW),
                      _step(_RETURN, _EPERM)])  # fmt: skip
    for number in _ALLOWED:
        rule(number, [_step(_RETURN, _ALLOW)])
    return b"".join([*steps, _step(_RETURN, _EPERM)])


@dataclass(slots=True, kw_only=True)
class Confinement:
    """The rights and limits of a confined process."""

    folder: str
    """The only folder that the process may write to; empty = none."""
    library: list[str]
    """Folders that the process may read, besides the files that system libraries need."""
    memory_bytes: int
    """Limit of the address space."""
    cpu_s: int
    """CPU time in seconds after which the kernel ends the process."""
    file_bytes: int
    """Size of the largest file that the process may write."""
    landlock_abi: int = NEWEST_ABI
    """Newest version of Landlock to use. Tests use older versions to show that they suffice."""


class UnavailableError(RuntimeError):
    """The kernel lacks a feature that confinement needs."""


def end_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends.

    Args:
        parent: Process id of the parent, in case it has already ended.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def confine(rules: Confinement) -> None:
    """Confine this process permanently, and restrict sys.path to folders that it may still read.

    Raises:
        UnavailableError: The kernel lacks a feature, so the process is not confined.
    """
    for limit, value in (
        (resource.RLIMIT_AS, rules.memory_bytes),
        (resource.RLIMIT_CPU, rules.cpu_s),
        (resource.RLIMIT_FSIZE, rules.file_bytes),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    sys.path[:] = [path for path in sys.path if any(os.path.realpath(path).startswith(each) for each in rules.library)]
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise UnavailableError("no_new_privs")
    _confine_files(rules)
    program = _filter()
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
    if os.uname().machine != "x86_64" or _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header, 0, 0):
        raise UnavailableError("seccomp")


def _confine_files(rules: Confinement) -> None:
    abi = min(_libc.syscall(_LANDLOCK_CREATE_RULESET, None, 0, 1), rules.landlock_abi)
    if abi < 1:
        raise UnavailableError("Landlock")
    handled = _ALL_BY_ABI[abi]
    attribute = struct.pack("Q", handled)
    ruleset = _libc.syscall(_LANDLOCK_CREATE_RULESET, attribute, len(attribute), 0)
    readable = [(path, _READ_FILE | _READ_DIRECTORY) for path in sorted({*rules.library, *_SYSTEM})]
    for path, rights in [*readable, (rules.folder, handled)]:
        if not path or not os.path.exists(path):
            continue
        allowed = rights if os.path.isdir(path) else rights & ~_READ_DIRECTORY
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        _libc.syscall(_LANDLOCK_ADD_RULE, ruleset, 1, struct.pack("=Qi", allowed & handled, handle), 0)
        os.close(handle)
    if _libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0):
        raise UnavailableError("Landlock")
    os.close(ruleset)
