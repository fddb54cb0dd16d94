"""Match a regular expression in processes that can be killed, because a match may take forever."""

from __future__ import annotations

from rlsync.data.problem import Problem
from rlsync.rewards.confined import ConfinedJob


class RegexReward:
    """1.0 if the first group of the pattern's last match is the answer, or, without a group, if there is any match.

    A completion for which matching takes longer than `cpu_s` of CPU time scores 0.
    """

    def __init__(self, pattern: str, cpu_s: float) -> None:
        self._job = ConfinedJob("rlsync.rewards.regex_worker:make", pattern, cpu_s=cpu_s, required=False)

    def __call__(self, completion: str, problem: Problem) -> float:
        """Score a completion."""
        return float(self._job((completion, problem.answer), otherwise=0.0))
