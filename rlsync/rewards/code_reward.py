"""Generated Python against tests, in the sandbox."""

from __future__ import annotations

import json
import re
from typing import Any

from rlsync.errors import DataError
from rlsync.rewards.sandbox import Limits, check_available, run_python
from rlsync.types import Problem

_BLOCK = re.compile(r"```(?:python|py)?\s*\n(.*?)```", re.DOTALL)


class CodeReward:
    """Share of tests that the completion's program passes; all or nothing unless `partial`.

    A problem's answer is either Python with assertions, which runs after the program, or a JSON list of
    {"input": text, "output": text}: the program reads the one and must print the other (white space at the ends aside).

    Raises:
        ConfigError: the kernel cannot confine programs.
    """

    def __init__(self, limits: Limits, *, partial: bool) -> None:
        check_available()
        self._limits, self._partial = limits, partial

    def __call__(self, completion: str, problem: Problem) -> float:
        program = extract_program(completion)
        tests = _input_output_tests(problem.answer)
        if tests is None:
            return float(self._runs(f"{program}\n\n{problem.answer}\n", "") is not None)
        passed = 0
        for test in tests:
            printed = self._runs(program, test["input"])
            passed += printed is not None and printed.strip() == test["output"].strip()
            if passed == 0 and not self._partial:
                return 0.0
        return passed / len(tests) if self._partial else float(passed == len(tests))

    def _runs(self, program: str, stdin: str) -> str | None:
        """What it printed; None if it failed or met a limit."""
        outcome = run_python(program, stdin, self._limits)
        return None if outcome.exit_code or outcome.timed_out else outcome.stdout


def extract_program(completion: str) -> str:
    """The last fenced block, or the whole completion where there is none."""
    blocks = _BLOCK.findall(completion)
    return blocks[-1] if blocks else completion


def _input_output_tests(answer: str) -> list[dict[str, str]] | None:
    """None where the answer is Python.

    Raises:
        DataError: a JSON list whose entries are not tests.
    """
    try:
        tests: Any = json.loads(answer)
    except json.JSONDecodeError:
        return None
    good = (
        isinstance(tests, list)
        and tests
        and all(
            isinstance(t, dict) and isinstance(t.get("input"), str) and isinstance(t.get("output"), str) for t in tests
        )
    )
    if not good:
        raise DataError(
            f'a code problem has Python or a JSON list of {{"input", "output"}} as its answer, not {answer!r}'
        )
    return tests
