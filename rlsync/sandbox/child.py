"""The main function of a confined process, which rlsync/sandbox/run.py starts and ends.

It imports only the standard library before the process confines itself.
"""

from __future__ import annotations

import json
import operator
import os
import sys
import types
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from rlsync.sandbox.confine import Confinement, UnavailableError, confine, end_with_parent
from rlsync.sandbox.examine import Examination, examine
from rlsync.sandbox.peer import Peer, Remote

CONFINED = b"confined"
"""Written to the status descriptor after the process has confined itself and before it runs untrusted code."""


class Role(StrEnum):
    """The task of a confined process."""

    program = "program"
    """Run a program that reads standard input and prints."""
    served = "served"
    """Run a program as a module, and then perform the operations that its tests ask for."""
    tests = "tests"
    """Run tests against a program in another process."""


@dataclass(slots=True, kw_only=True)
class Task:
    """The only argument of the process, passed as JSON. Descriptors are inherited; -1 = none."""

    role: Role
    parent: int
    """Process id of the process that started this one."""
    rules: Confinement
    status: int
    """Descriptor to which CONFINED is written."""
    job: int = -1
    """Descriptor from which the program's text, or the examination as JSON, is read."""
    incoming: int = -1
    """Pipe from the other process."""
    outgoing: int = -1
    """Pipe to the other process."""
    result: int = -1
    """Descriptor to which the outcome of the tests is written as JSON."""

    def to_json(self) -> str:
        """Return the task as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Task:
        """Read a task from JSON."""
        fields = json.loads(text)
        return cls(**fields | {"role": Role(fields["role"]), "rules": Confinement(**fields["rules"])})


def main() -> None:
    """Confine this process, and perform its task."""
    task = Task.from_json(sys.argv[1])
    end_with_parent(task.parent)
    with os.fdopen(task.job, encoding="utf-8") as given:
        job = given.read()
    sys.argv = ["main.py"]
    try:
        confine(task.rules)
    except UnavailableError as error:
        sys.exit(f"this kernel has no {error}")
    os.write(task.status, CONFINED)
    os.close(task.status)
    match task.role:
        case Role.program:
            exec(compile(job, "main.py", "exec"), {"__name__": "__main__"})
        case Role.served:
            _serve(job, task)
        case Role.tests:
            _examine(job, task)


def _peer(task: Task, operations: dict[str, Any], remote: Any, *, builtin_names: bool) -> Peer:
    incoming, outgoing = os.fdopen(task.incoming, "rb"), os.fdopen(task.outgoing, "wb")
    return Peer(incoming, outgoing, operations, remote, builtin_names=builtin_names)


class _Callback(Remote):
    """A function of the tests, which the program can call."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._peer.ask("call", self, *arguments, **named)


def _serve(source: str, task: Task) -> None:
    module = types.ModuleType("solution")
    sys.modules["solution"] = module  # dataclasses look up their module
    exec(compile(source, "main.py", "exec"), vars(module))
    operations = {
        "name": lambda name: vars(module)[name],
        "call": lambda function, *arguments, **named: function(*arguments, **named),
        "getattr": getattr, "setattr": setattr, "getitem": operator.getitem, "setitem": operator.setitem,
        "len": len, "iter": iter, "next": next, "bool": bool, "str": str, "repr": repr,
    }  # fmt: skip
    _peer(task, operations, _Callback, builtin_names=False).serve()


def _examine(job: str, task: Task) -> None:
    examination = Examination.from_json(job)
    passed = examine(examination, lambda operations, remote: _peer(task, operations, remote, builtin_names=True))
    with os.fdopen(task.result, "w", encoding="utf-8") as result:
        json.dump({"nonce": examination.nonce, "passed": passed}, result)


if __name__ == "__main__":
    main()
