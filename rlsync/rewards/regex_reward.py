"""A regular expression on the completion, in processes that can be ended: a match may take for ever."""

from __future__ import annotations

from rlsync.data.problem import Problem
from rlsync.rewards.confined import ConfinedJob


class RegexReward:
    """1.0 if the pattern's last match has the answer as its first group; without a group if there is any match.

    A completion that keeps the pattern busy for longer than `cpu_s` of CPU time scores 0.
    """

    def __init__(self, pattern: str, cpu_s: float) -> None:
        self._job = ConfinedJob("rlsync.rewards.regex_worker:make", pattern, cpu_s=cpu_s, required=False)

    def __call__(self, completion: str, problem: Problem) -> float:
        return float(self._job((completion, problem.answer), otherwise=0.0))
