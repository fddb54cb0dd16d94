"""A restricted eval for the model's text: arithmetic and sympy expressions without access to the rest of Python.

Some scorers of reasoning-gym evaluate answers, directly or by sympy's parse_expr. They run in a confined process, so
the text cannot harm the machine. The restriction prevents it from setting its own score.
"""

from __future__ import annotations

import builtins
import dis
import sys
from collections.abc import Iterator, Mapping
from types import CodeType
from typing import Any

from sympy import Basic, cbrt, gcd, lcm, ln, real_root, root, sqrt

_FORBIDDEN = ("ATTR", "METHOD", "IMPORT", "STORE_GLOBAL", "DELETE", "SETUP", "WITH", "YIELD", "AWAIT")
_FUNCTIONS = (
    abs, bool, complex, dict, float, int, list, max, min, pow, range, round, set, sorted, sum, tuple,
    cbrt, gcd, lcm, ln, real_root, root, sqrt,
)  # fmt: skip


def install_guard() -> None:
    """Replace eval in this process permanently."""
    plain = eval

    def guarded(source: Any, globals: Any = None, locals: Any = None, /) -> Any:
        caller = sys._getframe(1)
        if caller.f_globals.get("__name__") == "collections":  # a library defines a namedtuple
            return plain(source, globals, locals)
        names = caller.f_globals if globals is None else globals
        inner = (caller.f_locals if globals is None else names) if locals is None else locals
        code = source if isinstance(source, CodeType) else compile(source, "<answer>", "eval")
        check(code, {**vars(builtins), **names, **inner})
        return plain(code, names, inner)

    builtins.eval = guarded


def check(code: CodeType, names: Mapping[str, Any]) -> None:
    """Check that an expression only computes.

    Args:
        code: The compiled expression.
        names: Values of the names that the expression can use.

    Raises:
        ValueError: The expression uses attributes, statements, or names of something else than numbers and mathematics.
    """
    for instruction in _instructions(code):
        if any(part in instruction.opname for part in _FORBIDDEN):
            raise ValueError("an answer may not use attributes or statements")
        if instruction.opname in ("LOAD_NAME", "LOAD_GLOBAL", "LOAD_CLASSDEREF") and instruction.argval in names:
            value = names[instruction.argval]
            harmless = any(value is function for function in _FUNCTIONS) or isinstance(
                value, Basic | int | float | bool
            )
            if not harmless and not (isinstance(value, type) and issubclass(value, Basic)):
                raise ValueError(f"an answer may not use {instruction.argval!r}")


def _instructions(code: CodeType) -> Iterator[dis.Instruction]:
    yield from dis.get_instructions(code)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _instructions(constant)
