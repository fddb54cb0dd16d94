"""Reward functions that the user names by their import path."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path

from rlsync.errors import ConfigError
from rlsync.types import Problem

RewardFunction = Callable[[str, Problem], float]
"""f(completion, problem)."""


def load_function(path: str) -> RewardFunction:
    """Import `package.module:name` or `package.module.name`.

    Raises:
        ConfigError: the path is malformed, the module does not import, or the name is absent or not callable.
    """
    if not re.fullmatch(r"\w+(\.\w+)*[:.]\w+", path):
        raise ConfigError(f"reward.function={path!r} is malformed; want package.module:name")
    module_name, name = re.split(r"[:.](?=\w+$)", path)
    # A console script has its own folder on sys.path instead of the current one, where the user's file lies.
    # At the end, so that nothing there hides an installed package.
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        members = vars(importlib.import_module(module_name))
    except Exception as error:  # the user's module may raise anything
        raise ConfigError(
            f"reward.function={path!r}: importing {module_name} failed: {type(error).__name__}: {error}. Modules are "
            f"looked for among the installed packages and in {here}"
        ) from error
    if name not in members:
        public = sorted(member for member in members if not member.startswith("_"))
        near = get_close_matches(name, public, n=3) or public[:10]
        raise ConfigError(
            f"reward.function={path!r}: {module_name} has no {name!r}. Nearest: {', '.join(near) or 'it is empty'}"
        )
    function: RewardFunction = members[name]
    if not callable(function):
        raise ConfigError(
            f"reward.function={path!r} is {type(function).__name__}, not callable; want "
            "f(completion: str, problem: Problem) -> float"
        )
    return function
