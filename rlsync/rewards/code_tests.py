"""Read the tests in a problem's answer, in the forms of public data sets."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from rlsync.data.problem import Problem
from rlsync.errors import DataError
from rlsync.sandbox.examine import Call, Examination
from rlsync.sandbox.names import names_of

FORMS = (
    'Python with assertions, a JSON list of them, [{"input", "output"}, ...], {"inputs": [...], "outputs": [...]}, or '
    'with "fn_name" as well, calls of a function'
)
_FUNCTION_KEYS = ("fn_name", "func_name", "entry_point")


@dataclass(slots=True, kw_only=True)
class InputOutput:
    """Standard input of a program, and the output that it should print."""

    given: str
    expected: str


@dataclass(slots=True, kw_only=True)
class CodeTests:
    """Tests of a program: either pairs of input and output, or an examination by assertions or calls."""

    prints: list[InputOutput] = field(default_factory=list)
    examination: Examination | None = None


def read_tests(problem: Problem) -> CodeTests:
    """Read the tests in a problem's answer.

    Raises:
        DataError: The answer has none of the forms in FORMS, or its tests do not use the program.
    """
    try:
        value = json.loads(problem.answer)
    except ValueError:
        value = problem.answer
    if isinstance(value, str):
        return CodeTests(examination=_assertions([_with_check(value, problem)]))
    if isinstance(value, dict):
        return _columns(value, _function_name(value, problem))
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        return CodeTests(examination=_assertions(value))
    if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        return _rows(value, _function_name(value[0], problem))
    raise DataError(f"the answer of a code problem must be {FORMS}; it cannot be {_shown(problem.answer)}")


def _with_check(tests: str, problem: Problem) -> str:
    """Append the call of check(candidate), which HumanEval's tests define; the row names the candidate."""
    candidate = problem.metadata.get("entry_point")
    if "def check(" in tests and "\ncheck(" not in tests and isinstance(candidate, str):
        return f"{tests}\ncheck({candidate})"
    return tests


def _assertions(pieces: list[str]) -> Examination:
    names = set[str]()
    for piece in pieces:
        try:
            names |= names_of(piece).program
        except (SyntaxError, ValueError, RecursionError) as error:
            raise DataError(
                f"the answer of a code problem must be {FORMS}; as Python it does not compile: {error} in "
                f"{_shown(piece)}"
            ) from error
    if not names:
        raise DataError(
            "the tests use no name that a program would define, so every program would pass them. Call the function, "
            f"as in `check(name)`: {_shown(pieces[-1])}"
        )
    return Examination(pieces=pieces)


def _columns(value: dict[str, Any], function: str) -> CodeTests:
    """Read the tests of APPS and TACO, {"inputs": [...], "outputs": [...]}, with "fn_name" if they call a function.

    code_contests has "input" and "output" instead.
    """
    inputs, outputs = (value.get(f"{name}s", value.get(name)) for name in ("input", "output"))
    if not (isinstance(inputs, list) and isinstance(outputs, list) and inputs and len(inputs) == len(outputs)):
        raise DataError(
            f'"inputs" and "outputs" must be two lists of the same length, which is at least 1, but are {_shown(value)}'
        )
    pairs = list(zip(inputs, outputs, strict=True))
    if not function:
        return CodeTests(prints=[InputOutput(given=_text(i), expected=_text(o)) for i, o in pairs])
    calls = [Call(arguments=_arguments(i), expected=_json(o), listed=True) for i, o in pairs]
    return CodeTests(examination=Examination(function=function, calls=calls))


def _rows(value: list[dict[str, Any]], function: str) -> CodeTests:
    """Read the tests of LiveCodeBench: [{"input", "output", "testtype"}, ...].

    Tests without "testtype" give standard input and output.
    """
    for test in value:
        if not {"input", "output"} <= test.keys():
            raise DataError(f'a test needs "input" and "output", but {_shown(test)} lacks them')
    kinds = {test.get("testtype", "stdin") for test in value}
    if kinds == {"stdin"}:
        return CodeTests(prints=[InputOutput(given=_text(t["input"]), expected=_text(t["output"])) for t in value])
    if kinds != {"functional"}:
        found = ", ".join(sorted(map(repr, kinds)))
        raise DataError(f'"testtype" must be "stdin" or "functional", and the same in all tests; found {found}')
    if not function:
        raise DataError(
            'tests with "testtype": "functional" call a function, but no field names it. Add "fn_name" to the tests or '
            'to the row, or "func_name" to the row\'s "metadata"'
        )
    calls = [Call(arguments=_arguments(test["input"]), expected=_json(test["output"])) for test in value]
    return CodeTests(examination=Examination(function=function, calls=calls))


def _function_name(value: dict[str, Any], problem: Problem) -> str:
    """Return the name of the function that the tests call; empty if neither the tests nor the row name one."""
    row = problem.metadata
    extra = row.get("metadata")
    if isinstance(extra, str):
        try:
            extra = json.loads(extra)
        except ValueError:
            extra = None
    for place in (value, row, extra if isinstance(extra, dict) else {}):
        for key in _FUNCTION_KEYS:
            if isinstance(place.get(key), str) and place[key].strip():
                return str(place[key]).strip().removeprefix("Solution().")
    return ""


def _arguments(value: Any) -> list[Any]:
    """Return the arguments of a call, which are a list or, in LiveCodeBench, one JSON value on each line."""
    if isinstance(value, list):
        return value
    if isinstance(value, str):
        try:
            return [json.loads(line) for line in value.splitlines() if line.strip()]
        except ValueError as error:
            raise DataError(f"the arguments of a call must be a list, or lines of JSON: {_shown(value)}") from error
    raise DataError(f"the arguments of a call must be a list, or lines of JSON: {_shown(value)}")


def _json(value: Any) -> Any:
    """Return an expected value, which LiveCodeBench writes as JSON text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _text(value: Any) -> str:
    """Return standard input or output, which is given as text or as a list of lines."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    raise DataError(f"standard input and output must be text or a list of lines: {_shown(value)}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:120] + "..."
