"""The data source's own scorer, which runs in a confined process if it may interpret the model's text as code."""

from __future__ import annotations

from rlsync.data.problem import Problem
from rlsync.data.source import ProblemSource
from rlsync.rewards.confined import ConfinedJob


class TaskReward:
    """f(completion, problem) -> the source's score.

    Several scorers of reasoning-gym evaluate the model's text as Python or with sympy. Each of their samples is scored
    in its own confined process. A sample that takes longer than `cpu_s` of CPU time scores 0.

    Args:
        source: Source of the problems.
        cpu_s: CPU time for one sample in seconds; 0 = the default of ConfinedJob.

    Raises:
        ConfigError: The kernel cannot confine processes, and a scorer needs it.
    """

    def __init__(self, source: ProblemSource, cpu_s: float) -> None:
        self._source = source
        self._jobs = {
            part: ConfinedJob("rlsync.rewards.task_worker:make", (data.task, data.task_args), cpu_s=cpu_s, fresh=True)
            for part, data in source.scored_confined().items()
        }

    @property
    def is_harmless(self) -> bool:
        """Whether no scorer needs a confined process."""
        return not self._jobs

    def __call__(self, completion: str, problem: Problem) -> float:
        """Score a completion."""
        job = self._jobs.get(problem.part)
        if job is None:
            return self._source.score(problem, completion)
        return float(job((completion.strip(), problem.metadata), otherwise=0.0))
