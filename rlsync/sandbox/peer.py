"""How a program and the tests that examine it talk: plain data over two pipes, from one confined process to another.

A value crosses as JSON: numbers, text, bytes, None, and lists, tuples, sets and dicts of them, each as its builtin
type, whatever class the sender gave it. Any other object stays where it is, and the other side knows it by a number. So
what a program hands to its tests cannot bring code with it, an `__eq__` for example. Imports only the standard library.
"""

from __future__ import annotations

import builtins
import json
from collections.abc import Callable
from typing import IO, Any

_MOST_DIGITS = 1 << 63
"""Integers beyond it cross as hexadecimal text: Python limits the digits of decimal ones."""

_MUTABLE = (list, dict, set)

Operation = Callable[..., Any]


class RemoteError(Exception):
    """The other side raised something that is no builtin exception, or its process ended."""


class Remote:
    """An object of the other side; a subclass gives it behaviour."""

    _peer: Peer
    _number: int

    def __init__(self, peer: Peer, number: int) -> None:
        object.__setattr__(self, "_peer", peer)
        object.__setattr__(self, "_number", number)


class Peer:
    """One end of the conversation.

    Args:
        incoming, outgoing: the two pipes, one JSON object a line.
        operations: what the other side may ask for, by name.
        remote: what its objects become here.
        builtin_names: send builtin functions and types by their name; the other side takes its own.
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
        """The other side's process has ended, or no longer speaks the protocol."""

    def ask(self, operation: str, *arguments: Any, **named: Any) -> Any:
        """The other side's result of an operation; meanwhile it may ask for something itself.

        Lists, dicts and sets among the arguments that it changed in place are changed here as well.

        Raises:
            RemoteError, or the builtin exception that was raised there.
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
        """Answer until the other side ends."""
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
        except BaseException as error:  # SystemExit too is only an answer
            line = json.dumps({"raised": [type(error).__name__, _text(error)]})
        self._write(line)

    def _changed(self, before: list[Any], arguments: tuple[Any, ...]) -> list[tuple[int, Any]]:
        """Positions and new values of the arguments that an operation has changed in place."""
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
                raise ValueError("no object")
        except (OSError, ValueError, RecursionError) as error:
            self.lost = True
            raise RemoteError("the other process has ended") from error
        return message

    def encode(self, value: Any) -> Any:
        """A value as JSON."""
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
        """The value that the other side encoded."""
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
    """Give a list, dict or set the contents of another one."""
    if type(target) is not type(value) or type(target) not in _MUTABLE:
        raise RemoteError("an argument became something else")
    target.clear()
    (target.extend if isinstance(target, list) else target.update)(value)


def _exception(name: str, text: str) -> Exception:
    """An exception like the one that was raised on the other side; never one that ends a process."""
    kind = vars(builtins).get(name)
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            return kind(text)
        except TypeError:  # UnicodeDecodeError, for one, wants more than a text
            pass
    return RemoteError(f"{name}: {text}")


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:  # its class is the program's
        return ""
