"""Texts that stand below the attributes of a class, which Python itself does not keep."""

from __future__ import annotations

import ast
import inspect
import sys
from functools import cache
from pathlib import Path


def attribute_texts(kind: type) -> dict[str, str]:
    """Return the docstring of each attribute of a class, its base classes included, as one line of text."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if base.__module__.startswith("rlsync."):
            texts |= _of_module(Path(sys.modules[base.__module__].__file__ or "")).get(base.__name__, {})
    return texts


def class_text(kind: type) -> str:
    """Return the docstring of a class as one line of text."""
    return " ".join(inspect.cleandoc(kind.__doc__ or "").split())


@cache
def _of_module(file: Path) -> dict[str, dict[str, str]]:
    """Return the docstrings of attributes by class and attribute."""
    classes = [node for node in ast.parse(file.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)]
    return {each.name: _of_class(each) for each in classes}


def _of_class(node: ast.ClassDef) -> dict[str, str]:
    texts = {}
    for statement, following in zip(node.body, node.body[1:], strict=False):
        name = _assigned(statement)
        if name and isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            texts[name] = " ".join(inspect.cleandoc(str(following.value.value)).split())
    return texts


def _assigned(statement: ast.stmt) -> str | None:
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        return statement.target.id
    if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
        return statement.targets[0].id
    return None
