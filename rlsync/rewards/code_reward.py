"""Run generated Python against tests in the sandbox."""

from __future__ import annotations

from dataclasses import replace

from rlsync.data.problem import Problem
from rlsync.rewards.code_blocks import extract_program
from rlsync.rewards.code_output import same_output
from rlsync.rewards.code_tests import CodeTests, InputOutput, read_tests
from rlsync.sandbox.run import check_available, run_python, run_tests
from rlsync.sandbox.start import Limits

_MOST_OUTPUT = 1 << 28


class CodeReward:
    """Scores the completion's program by its tests, whose forms rewards/code_tests.py reads.

    Args:
        limits: Limits of a program.
        partial: The reward is the share of tests that pass; otherwise it is 1 if all pass, else 0.

    Raises:
        ConfigError: The kernel cannot confine programs.
    """

    def __init__(self, limits: Limits, *, partial: bool) -> None:
        check_available()
        self._limits, self._partial = limits, partial

    def check(self, problem: Problem) -> None:
        """Raise DataError if the problem's answer has no tests."""
        read_tests(problem)

    def __call__(self, completion: str, problem: Problem) -> float:
        """Run the completion's program against the problem's tests, and return the reward."""
        program, tests = extract_program(completion), read_tests(problem)
        passed, count = self._examined(program, tests) if tests.examination else self._printed(program, tests.prints)
        return passed / count if self._partial else float(passed == count)

    def _examined(self, program: str, tests: CodeTests) -> tuple[int, int]:
        assert tests.examination is not None
        examination = replace(tests.examination, stop_early=not self._partial)
        return sum(run_tests(program, examination, self._limits)), examination.size

    def _printed(self, program: str, tests: list[InputOutput]) -> tuple[int, int]:
        passed = 0
        for test in tests:
            good = self._prints(program, test)
            passed += good
            if not good and not self._partial:
                break
        return passed, len(tests)

    def _prints(self, program: str, test: InputOutput) -> bool:
        wanted = len(test.expected.encode(errors="replace"))
        # The limit is rounded up to a power of two, so that it reveals little about the answer.
        room = 1 << min((2 * wanted).bit_length(), _MOST_OUTPUT.bit_length())
        outcome = run_python(program, test.given, self._limits, output_bytes=room)
        return not outcome.exit_code and not outcome.stopped and same_output(outcome.stdout, test.expected)
