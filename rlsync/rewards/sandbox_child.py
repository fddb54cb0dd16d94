"""The process that runs untrusted Python: locks itself in, then runs the program. Imports the standard library alone.

What holds it are the kernel's rules, not Python's: Landlock (files), a seccomp allow-list (system calls) and resource
limits. So ctypes and raw system calls meet the same walls.
"""

import ctypes
import os
import resource
import struct
import sys

_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_READ = 1 << 0 | 1 << 2 | 1 << 3  # execute (to map libraries), read file, read directory
_ALL_BY_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
UNAVAILABLE = 97
"""Exit code where the kernel lacks what holds the program."""
_SYSTEM = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/dev/null", "/dev/urandom")

# x86-64. Read and write, memory, time, threads, files (which Landlock confines), pipes; nothing that starts a program
# or a process, opens a socket, touches another process, changes an owner, a mode or a limit.
_ALLOWED = (
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 17, 18, 19, 20, 21, 22, 23, 24, 25, 28, 32, 33, 34, 35, 36,
    37, 38, 39, 60, 63, 73, 74, 75, 77, 78, 79, 80, 81, 82, 83, 84, 87, 89, 95, 96, 97, 98, 99, 100, 102, 104, 107,
    108, 110, 111, 131, 158, 186, 201, 202, 204, 217, 218, 228, 229, 230, 231, 232, 233, 257, 258, 262, 263, 264,
    267, 269, 270, 271, 273, 281, 285, 290, 291, 292, 293, 295, 296, 309, 316, 318, 324, 332, 334, 439,
)  # fmt: skip
_CLONE, _CLONE3, _TGKILL, _PRLIMIT, _IOCTL, _FCNTL = 56, 435, 234, 302, 16, 72
_CLONE_THREAD = 0x00010000
_IOCTLS = (0x5401, 0x5421, 0x5451, 0x541B)  # is a terminal?, non-blocking, close on exec, bytes to read
_FCNTLS = (0, 1, 2, 3, 4, 5, 6, 7, 1030)  # duplicates, flags, locks; not F_SETOWN, whose signals reach other processes
_ARCH_X86_64 = 0xC000003E
_ALLOW, _KILL, _EPERM, _ENOSYS = 0x7FFF0000, 0x80000000, 0x00050000 | 1, 0x00050000 | 38
_LOAD, _EQUAL, _HAS, _RETURN = 0x20, 0x15, 0x45, 0x06

_libc = ctypes.CDLL(None, use_errno=True)


def _step(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("HBBI", code, yes, no, value)


def _argument(index: int) -> int:
    """Offset of a system call's argument (its low half) in struct seccomp_data."""
    return 16 + 8 * index


def _filter() -> bytes:
    """The seccomp program: a row of comparisons, each followed by what to return."""
    steps = [_step(_LOAD, 4), _step(_EQUAL, _ARCH_X86_64, 1, 0), _step(_RETURN, _KILL), _step(_LOAD, 0)]

    def rule(number: int, body: list[bytes]) -> None:
        steps.extend([_step(_EQUAL, number, 0, len(body)), *body])

    rule(_CLONE3, [_step(_RETURN, _ENOSYS)])  # its flags lie in memory; the C library falls back to clone
    rule(_CLONE, [_step(_LOAD, _argument(0)), _step(_HAS, _CLONE_THREAD, 0, 1), _step(_RETURN, _ALLOW),
                  _step(_RETURN, _EPERM)])  # fmt: skip
    rule(_TGKILL, [_step(_LOAD, _argument(0)), _step(_EQUAL, os.getpid(), 0, 1), _step(_RETURN, _ALLOW),
                   _step(_RETURN, _EPERM)])  # fmt: skip
    rule(_PRLIMIT, [_step(_LOAD, _argument(2)), _step(_EQUAL, 0, 0, 3), _step(_LOAD, _argument(2) + 4),
                    _step(_EQUAL, 0, 0, 1), _step(_RETURN, _ALLOW), _step(_RETURN, _EPERM)])  # fmt: skip
    for number, requests in ((_IOCTL, _IOCTLS), (_FCNTL, _FCNTLS)):
        tests = [_step(_EQUAL, request, len(requests) - i, 0) for i, request in enumerate(requests)]
        rule(number, [_step(_LOAD, _argument(1)), *tests, _step(_RETURN, _EPERM), _step(_RETURN, _ALLOW)])
    for number in _ALLOWED:
        rule(number, [_step(_RETURN, _ALLOW)])
    return b"".join([*steps, _step(_RETURN, _EPERM)])


def _confine_files(folder: str) -> None:
    abi = _libc.syscall(_LANDLOCK_CREATE_RULESET, None, 0, 1)
    if abi < 1:
        sys.exit(UNAVAILABLE)
    handled = _ALL_BY_ABI[min(abi, 5)]
    attribute = struct.pack("Q", handled)
    ruleset = _libc.syscall(_LANDLOCK_CREATE_RULESET, attribute, len(attribute), 0)
    paths = {sys.base_prefix, sys.prefix, *sys.path, *_SYSTEM}
    for path, rights in [*((p, _READ) for p in sorted(paths)), (folder, handled)]:
        if not path or not os.path.exists(path):
            continue
        allowed = rights if os.path.isdir(path) else rights & ~(1 << 3)
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        _libc.syscall(_LANDLOCK_ADD_RULE, ruleset, 1, struct.pack("=Qi", allowed & handled, handle), 0)
        os.close(handle)
    if _libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0):
        sys.exit(UNAVAILABLE)
    os.close(ruleset)


def _confine(folder: str, memory: int, seconds: int, file_bytes: int) -> None:
    for limit, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        sys.exit(UNAVAILABLE)
    _confine_files(folder)
    program = _filter()
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
    if os.uname().machine != "x86_64" or _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header, 0, 0):
        sys.exit(UNAVAILABLE)


def main() -> None:
    folder, memory, seconds, file_bytes = sys.argv[1], *map(int, sys.argv[2:])
    with open(os.path.join(folder, "main.py"), encoding="utf-8") as file:
        source = file.read()
    sys.argv = ["main.py"]
    _confine(folder, memory, seconds, file_bytes)
    exec(compile(source, "main.py", "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    main()
