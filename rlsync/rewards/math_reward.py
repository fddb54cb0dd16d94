"""Symbolic comparison of mathematical answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from rlsync.data.problem import Problem
from rlsync.errors import DataError
from rlsync.rewards.confined import ConfinedJob
from rlsync.rewards.math_answers import NO_GOLD, plain_words
from rlsync.rewards.workers import WorkerError

_MOST_CHECKED = 2000
_SHOWN = 5
_PLAIN_NUMBER = re.compile(r"-?\d{1,15}(\.\d{1,15})?")


class MathReward:
    r"""1.0 if math-verify finds the completion's answer equal to the problem's, else 0.0.

    math-verify limits its time only by SIGALRM, which needs the main thread, and an answer such as `9^{9^{9}}` keeps
    sympy busy forever. So it runs in processes that can be killed, and an answer that takes too long is wrong.

    Args:
        boxed: Only the contents of \boxed{} are an answer.
        cpu_s: CPU time for one answer in seconds; 0 = the default of ConfinedJob.
    """

    def __init__(self, *, boxed: bool = False, cpu_s: float = 0.0) -> None:
        self._job = ConfinedJob("rlsync.rewards.math_worker:make", None, cpu_s=cpu_s, required=False)
        self._boxed = boxed

    def __call__(self, completion: str, problem: Problem) -> float:
        """Score one completion.

        Raises:
            ValueError: math-verify finds nothing to compare in the problem's answer.
        """
        equal = self._job((problem.answer, completion, self._boxed), otherwise=False)
        if equal == NO_GOLD:
            raise ValueError(f"math-verify finds no mathematics in the problem's answer {problem.answer!r}")
        return float(equal is True)

    def check(self, problems: Sequence[Problem], say: Callable[[str], None]) -> None:
        """Tell the user which answers no completion can match, not even one that repeats them.

        Args:
            problems: Problems whose answers are checked.
            say: Prints a line for the user.

        Raises:
            DataError: No completion can match any of the answers.
        """
        distinct = {problem.answer: problem for problem in problems}
        doubtful = [p for a, p in distinct.items() if not _PLAIN_NUMBER.fullmatch(a) and not plain_words(a)]
        asked = doubtful[:_MOST_CHECKED]
        with ThreadPoolExecutor(self._job.size) as threads:
            matched = list(threads.map(self._matches_itself, asked))
        lost = [problem for problem, good in zip(asked, matched, strict=True) if not good]
        if not lost:
            return
        shown = "; ".join(f"{p.origin or f'problem {p.id}'}: {p.answer[:60]!r}" for p in lost[:_SHOWN])
        more = f" and {len(lost) - _SHOWN} more" if len(lost) > _SHOWN else ""
        message = f"with reward=math_verify no completion can match {len(lost)} of the answers: {shown}{more}"
        if len(lost) == len(distinct):
            raise DataError(
                f"{message}. Name the column of the final answers in data.answer_column, or set data.answer_parser"
            )
        say(f"{message}. Their samples never earn a reward")

    def close(self) -> None:
        """End the processes; the next call starts new ones."""
        self._job.close()

    def _matches_itself(self, problem: Problem) -> bool:
        answer = problem.answer.rpartition("####")[2].strip()
        repeated = answer if "\\boxed" in answer else f"\\boxed{{{answer.strip('$')}}}"
        try:
            return self._job((problem.answer, repeated, False), otherwise=False) is True
        except WorkerError:
            return False
