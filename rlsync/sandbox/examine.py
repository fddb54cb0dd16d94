"""Run assertions or calls against a program that runs in another process."""

from __future__ import annotations

import inspect
import json
import math
import sys
import types
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from rlsync.sandbox.names import Names, names_of
from rlsync.sandbox.peer import Peer, Remote

TOLERANCE = 1e-6
"""Absolute or relative difference up to which floats count as equal."""


@dataclass(slots=True, kw_only=True)
class Call:
    """Arguments of a call and the value that it should return, as JSON values."""

    arguments: list[Any]
    expected: Any
    listed: bool = False
    """`expected` may also be a list with the value as its only item, as in APPS."""


@dataclass(slots=True, kw_only=True)
class Examination:
    """Tests of a program: either assertions or calls of a function."""

    nonce: str = ""
    """Random text that the tests' process returns with the result, and that the program cannot know."""
    pieces: list[str] = field(default_factory=list)
    """Python with assertions, in one namespace; each piece passes or fails."""
    function: str = ""
    """Name of the function that `calls` call: a function of the program, or a method of its class Solution."""
    calls: list[Call] = field(default_factory=list)
    stop_early: bool = False
    """Stop at the first failure."""

    @property
    def size(self) -> int:
        """Number of tests."""
        return len(self.pieces) + len(self.calls)

    def to_json(self) -> str:
        """Return the examination as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Examination:
        """Read an examination from JSON."""
        fields = json.loads(text)
        return cls(**fields | {"calls": [Call(**call) for call in fields["calls"]]})


def examine(examination: Examination, connect: Callable[[dict[str, Any], Any], Peer]) -> list[bool]:
    """Run the tests, and return which of them passed.

    A test passes if it raises nothing and the program's process still answers. With `stop_early` the list ends at the
    first failure.

    Args:
        examination: The tests.
        connect: Makes the connection to the program's process.
    """
    peer = connect({"call": _call_back}, _Object)
    if examination.pieces:
        namespace = _namespace(peer, [names_of(piece) for piece in examination.pieces])
        trials = [lambda piece=piece: _run(piece, namespace) for piece in examination.pieces]
    else:
        trials = [lambda call=call: _check(call, examination.function, peer) for call in examination.calls]
    passed: list[bool] = []
    for trial in trials:
        try:
            trial()
            passed.append(not peer.lost)
        except BaseException:  # noqa: BLE001  (a test that raises anything has failed)
            passed.append(False)
        if examination.stop_early and not passed[-1]:
            break
    return passed


def _call_back(function: Any, *arguments: Any, **named: Any) -> Any:
    """Call a function that the tests gave to the program."""
    if not isinstance(function, types.FunctionType | types.MethodType):
        raise TypeError("only functions of the tests can be called")
    return function(*arguments, **named)


class _Object(Remote):
    """An object of the program. It supports iteration but not `==` and `in`, so only the tests compare values."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._peer.ask("call", self, *arguments, **named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # protocols of Python and numpy, by which others decide how to treat the object
            raise AttributeError(name)
        return self._peer.ask("getattr", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._peer.ask("setattr", self, name, value)


def _forward(operation: str) -> Callable[..., Any]:
    return lambda self, *arguments: self._peer.ask(operation, self, *arguments)


for _operation in ("getitem", "setitem", "len", "iter", "next", "bool", "str", "repr"):
    setattr(_Object, f"__{_operation}__", _forward(_operation))


def _namespace(peer: Peer, names: list[Names]) -> dict[str, Any]:
    """Return globals for the tests: names that they use but do not define come from the program.

    Builtins and modules are Python's own.
    """
    _provide_solution(peer)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for name in sorted({name for each in names for name in each.modules}):
        namespace[name] = __import__(name)
    for name in sorted({name for each in names for name in each.program}):
        try:
            namespace[name] = peer.ask("name", name)
        except Exception:  # noqa: BLE001  (the program lacks the name, so its use raises NameError)
            continue
    return namespace


def _provide_solution(peer: Peer) -> None:
    """Let tests say `from solution import name`."""

    def look_up(name: str) -> Any:
        try:
            return peer.ask("name", name)
        except KeyError as error:
            raise AttributeError(name) from error

    module = types.ModuleType("solution")
    vars(module)["__getattr__"] = look_up
    sys.modules["solution"] = module


def _run(piece: str, namespace: dict[str, Any]) -> None:
    before = set(namespace)
    exec(compile(piece, "tests.py", "exec"), namespace)
    for name in [name for name in namespace if name not in before and name.startswith("test")]:
        if inspect.isfunction(namespace[name]) and not inspect.signature(namespace[name]).parameters:
            namespace[name]()


def _check(call: Call, name: str, peer: Peer) -> None:
    try:
        function = peer.ask("name", name)
    except KeyError:
        function = peer.ask("getattr", peer.ask("call", peer.ask("name", "Solution")), name)
    got = peer.ask("call", function, *call.arguments)
    listed = call.listed and isinstance(call.expected, list) and len(call.expected) == 1
    assert same(got, call.expected) or (listed and same(got, call.expected[0]))


def same(got: Any, expected: Any) -> bool:
    """Whether a returned value equals the JSON value `expected`. Tuples equal lists; floats may differ by TOLERANCE."""
    match expected:
        case list():
            return (
                type(got) in (list, tuple)
                and len(got) == len(expected)
                and all(same(a, b) for a, b in zip(got, expected, strict=True))
            )
        case dict():
            plain = {_key(key): value for key, value in got.items()} if type(got) is dict else {}
            return (
                type(got) is dict
                and plain.keys() == expected.keys()
                and all(same(plain[key], expected[key]) for key in expected)
            )
        case float() if type(got) in (int, float):
            return got == expected or math.isclose(got, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
        case int() if type(got) is float:
            return math.isclose(got, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return type(got) in (bool, int, float, str, type(None)) and bool(got == expected)


def _key(key: Any) -> str:
    """Return a dictionary's key as JSON writes it."""
    return key if isinstance(key, str) else json.dumps(key) if isinstance(key, int | float | None) else repr(key)
