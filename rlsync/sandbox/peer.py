"""The connection between a program and its tests: plain data over two pipes between two confined processes.

Values are sent as JSON: numbers, text, bytes, None, and lists, tuples, sets and dicts of them, each as its builtin type
even if the sender's class is a subclass. Any other object stays in its process, and the other side refers to it by a
number. So values that a program passes to its tests cannot contain code, for example an `__eq__`. This file imports
only the standard library.
"""

from __future__ import annotations

import builtins
import json
from collections.abc import Callable
from typing import IO, Any

_MOST_DIGITS = 1 << 63
"""Integers of this absolute value or more are sent in hexadecimal, because Python limits the digits of decimal ones."""

_MUTABLE = (list, dict, set)

Operation = Callable[..., Any]


class RemoteError(Exception):
    """The other side raised an exception that is not builtin, or its process has ended."""


class Remote:
    """A reference to an object of the other side. Subclasses define its behaviour."""

    _peer: Peer
    _number: int

    def __init__(self, peer: Peer, number: int) -> None:
        object.__setattr__(self, "_peer", peer)
        object.__setattr__(self, "_number", number)


class Peer:
    """One end of the connection.

    Args:
        incoming: Pipe from the other side, with one JSON object on each line.
        outgoing: Pipe to the other side.
        operations: Operations that the other side may ask for, by name.
        remote: Makes the reference to an object of the other side.
        builtin_names: Send builtin functions and types by name, so that the other side uses its own.
    """

    def __init__(
        self,
        incoming: IO[bytes],
        outgoing: IO[bytes],
        operations: dict[str, Operation],
        remote: Callable[[Peer, int], Any],
        *,
        builtin_names: bool,
    ) -> None:
        self._incoming, self._outgoing = incoming, outgoing
        self._operations, self._remote, self._builtin_names = operations, remote, builtin_names
        self._objects: list[Any] = []
        self.lost = False
        """Whether the other side's process has ended or has violated the protocol."""

    def ask(self, operation: str, *arguments: Any, **named: Any) -> Any:
        """Return the result of an operation of the other side, which may ask for operations of this side meanwhile.

        If it changes lists, dicts or sets among the arguments in place, they are changed here as well.

        Raises:
            RemoteError: The other side has ended, or raised an exception that is not builtin. A builtin exception is
                raised as itself.
        """
        self._send({"do": operation, "arguments": self.encode(arguments), "named": self.encode(named)})
        while True:
            message = self._receive()
            if "do" in message:
                self._answer(message)
            elif "raised" in message:
                raise _exception(*message["raised"])
            else:
                for index, value in message["changed"]:
                    _replace(arguments[index], self.decode(value))
                return self.decode(message["value"])

    def serve(self) -> None:
        """Answer requests until the other side ends."""
        while True:
            try:
                message = self._receive()
            except RemoteError:
                return
            self._answer(message)

    def _answer(self, message: dict[str, Any]) -> None:
        try:
            arguments, named = self.decode(message["arguments"]), self.decode(message["named"])
            value = self.encode(self._operations[message["do"]](*arguments, **named))
            line = json.dumps({"value": value, "changed": self._changed(message["arguments"]["tuple"], arguments)})
        except BaseException as error:  # noqa: BLE001  (any exception is sent back as the answer, even SystemExit)
            line = json.dumps({"raised": [type(error).__name__, _text(error)]})
        self._write(line)

    def _changed(self, before: list[Any], arguments: tuple[Any, ...]) -> list[tuple[int, Any]]:
        """Return positions and new values of the arguments that an operation has changed in place."""
        after = [(i, self.encode(each)) for i, each in enumerate(arguments) if type(each) in _MUTABLE]
        return [(index, value) for index, value in after if value != before[index]]

    def _send(self, message: dict[str, Any]) -> None:
        self._write(json.dumps(message))

    def _write(self, line: str) -> None:
        try:
            self._outgoing.write(line.encode() + b"\n")
            self._outgoing.flush()
        except OSError as error:
            self.lost = True
            raise RemoteError("the other process has ended") from error

    def _receive(self) -> dict[str, Any]:
        try:
            message = json.loads(self._incoming.readline())
            if not isinstance(message, dict):
                raise ValueError("not a JSON object")
        except (OSError, ValueError, RecursionError) as error:
            self.lost = True
            raise RemoteError("the other process has ended") from error
        return message

    def encode(self, value: Any) -> Any:
        """Return a value in the form that is sent as JSON."""
        if type(value).__module__ == "numpy":
            value = value.tolist()
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            plain = int(value)
            return plain if abs(plain) < _MOST_DIGITS else {"int": hex(plain)}
        for kind in (float, str):
            if isinstance(value, kind):
                return kind(value)
        if isinstance(value, list):
            return [self.encode(each) for each in value]
        for collection in (tuple, set, frozenset):
            if isinstance(value, collection):
                return {collection.__name__: [self.encode(each) for each in value]}
        if isinstance(value, dict):
            return {"dict": [[self.encode(key), self.encode(each)] for key, each in value.items()]}
        if isinstance(value, complex):
            return {"complex": [value.real, value.imag]}
        if isinstance(value, bytes | bytearray):
            return {"bytes": bytes(value).hex()}
        return self._encode_object(value)

    def _encode_object(self, value: Any) -> Any:
        if isinstance(value, Remote):
            return {"yours": value._number}
        name = getattr(value, "__name__", "")
        if self._builtin_names and getattr(value, "__module__", "") == "builtins" and vars(builtins).get(name) is value:
            return {"builtin": name}
        self._objects.append(value)
        return {"mine": len(self._objects) - 1}

    def decode(self, value: Any) -> Any:
        """Return the value that the other side has encoded."""
        if isinstance(value, list):
            return [self.decode(each) for each in value]
        if not isinstance(value, dict):
            return value
        ((kind, content),) = value.items()
        match kind:
            case "tuple" | "set" | "frozenset":
                return vars(builtins)[kind](self.decode(each) for each in content)
            case "dict":
                return {self.decode(key): self.decode(each) for key, each in content}
            case "int":
                return int(content, 16)
            case "complex":
                return complex(*content)
            case "bytes":
                return bytes.fromhex(content)
            case "yours":
                return self._objects[content]
            case "mine":
                return self._remote(self, content)
            case "builtin" if not self._builtin_names:
                return vars(builtins)[content]
        raise ValueError(f"unknown kind of value {kind!r}")


def _replace(target: Any, value: Any) -> None:
    """Replace the contents of a list, dict or set by those of another one."""
    if type(target) is not type(value) or type(target) not in _MUTABLE:
        raise RemoteError("an argument has changed its type")
    target.clear()
    (target.extend if isinstance(target, list) else target.update)(value)


def _exception(name: str, text: str) -> Exception:
    """Make an exception like the one that was raised on the other side, but never one that ends a process."""
    kind = vars(builtins).get(name)
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            return kind(text)
        except TypeError:  # UnicodeDecodeError, for example, needs more arguments
            pass
    return RemoteError(f"{name}: {text}")


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:  # noqa: BLE001  (__str__ of a program's exception class may raise anything)
        return ""
