"""Functions and classes that the user names by an import path or a file."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from rlsync.errors import ConfigError
from rlsync.paths import expanded


def load_callable(path: str, *, field: str, signature: str) -> Callable[..., Any]:
    """Import `package.module:name`, `package.module.name` or `folder/file.py:name`.

    Args:
        path: What the user gave.
        field: The configuration field that holds the path, for messages.
        signature: Description of what the field needs, for messages.

    Raises:
        ConfigError: The path is malformed, the module cannot be imported, or the name is missing or not callable.
    """
    if re.fullmatch(r"[^:]+\.py:\w+", path):
        module_name, name = path.split(":")
        load: Callable[[str], ModuleType] = _load_file
    elif re.fullmatch(r"\w+(\.\w+)*[:.]\w+", path):
        module_name, name = re.split(r"[:.](?=\w+$)", path)
        load = importlib.import_module
    else:
        raise ConfigError(f"{field}={path!r} is malformed. Give package.module:name or folder/file.py:name")
    # A console script has its own folder on sys.path instead of the current one, which may have the user's module.
    # The current folder is added at the end, so that no file there hides an installed package.
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        members = vars(load(module_name))
    except Exception as error:  # the user's module may raise anything
        raise ConfigError(
            f"{field}={path!r}: importing {module_name} failed: {type(error).__name__}: {error}. Modules are "
            f"searched among the installed packages and in {here}"
        ) from error
    if name not in members:
        public = sorted(member for member in members if not member.startswith("_"))
        near = get_close_matches(name, public, n=3) or public[:10]
        raise ConfigError(
            f"{field}={path!r}: {module_name} has no {name!r}. Nearest: {', '.join(near) or 'the module has no names'}"
        )
    member: Callable[..., Any] = members[name]
    if not callable(member):
        raise ConfigError(f"{field}={path!r} is {type(member).__name__}, not callable; it must be {signature}")
    return member


def check_call(
    function: Callable[..., Any], arguments: Sequence[Any], named: Mapping[str, Any], *, field: str, fix: str
) -> None:
    """Check that a function accepts arguments, without calling it.

    Args:
        function: The user's function.
        arguments: Positional arguments.
        named: Keyword arguments.
        field: The configuration field with its value, for messages.
        fix: How to correct the error, for messages.

    Raises:
        ConfigError: The function does not accept the arguments.
    """
    try:
        signature = inspect.signature(function, follow_wrapped=False)  # a wrapper may accept other arguments
    except (TypeError, ValueError):  # some functions that are written in C have no signature
        return
    try:
        signature.bind(*arguments, **named)
    except TypeError as error:
        raise ConfigError(f"{field}: {error}; it takes {signature}. {fix}") from error


def _load_file(path: str) -> ModuleType:
    """Load a file once in a process, as an import would."""
    file = expanded(path).resolve()
    name = f"rlsync_user_code:{file}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, file)
        if spec is None or spec.loader is None:
            raise ImportError(f"{file} is not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look up their module while it is executed
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]
