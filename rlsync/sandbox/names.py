"""Find the names that tests expect the program to define."""

from __future__ import annotations

import ast
import builtins
import sys
from dataclasses import dataclass


@dataclass(slots=True, kw_only=True, frozen=True)
class Names:
    """The names that a text uses but does not define."""

    program: frozenset[str]
    """Names that the program must define."""
    modules: frozenset[str]
    """Modules of the standard library that the text uses without importing them."""


def names_of(source: str) -> Names:
    """Return the names that a text uses but does not define. Builtins are left out, even if the program redefines them.

    Raises:
        SyntaxError: The text is not valid Python.
        ValueError: The text has a null byte.
    """
    tree = ast.parse(source)
    qualified = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    loaded, bare, defined, imported = set[str](), set[str](), set[str](), set[str]()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                loaded.add(name)
                if id(node) not in qualified:
                    bare.add(name)
            case ast.Name(id=name) | ast.arg(arg=name) | ast.ExceptHandler(name=str(name)):
                defined.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                defined.add(name)
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
                defined.add(name)
            case ast.ImportFrom(module="solution"):
                imported.update(alias.name for alias in node.names)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                imported.update(alias.name for alias in aliases if alias.name == "solution")
                defined |= {(alias.asname or alias.name).partition(".")[0] for alias in aliases}
    free = imported | loaded - defined - vars(builtins).keys() - {"__name__"}
    modules = {name for name in free - bare if name in sys.stdlib_module_names}
    return Names(program=frozenset(free - modules), modules=frozenset(modules))
