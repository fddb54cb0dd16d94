"""Make the reward function that a configuration describes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rlsync.config.reward import Isolation, RewardFunctionConfig, RewardKind
from rlsync.data.problem import Problem
from rlsync.data.source import ProblemSource
from rlsync.errors import DataError, error_context
from rlsync.rewards.cores import usable_cores
from rlsync.rewards.functions import BatchFunction, is_async, load_function, one_by_one

Check = Callable[[list[Problem], Callable[[str], None]], None]
"""f(problems, say): refuses answers that the function cannot read, and tells the user of others that will not work."""


@dataclass(slots=True, kw_only=True)
class Built:
    """A reward function that is ready to be called."""

    function: BatchFunction
    threads: int = 1
    """Number of concurrent calls: the number of cores for functions that run in processes, more for functions that wait
    for a service, and 1 for all others, which may not be thread-safe."""
    check: Check


def build(config: RewardFunctionConfig, source: ProblemSource) -> Built:
    """Make the function that `config` describes. Modules that take long to import are imported only where needed.

    Args:
        config: Configuration of the function.
        source: Source of the problems, for reward.kind=task.

    Raises:
        ConfigError: The user's function cannot be loaded, or the reward needs a sandbox that this machine lacks.
    """
    match config.kind:
        case RewardKind.task:
            from rlsync.rewards.task_reward import TaskReward

            task = TaskReward(source, config.timeout_s)
            return Built(function=one_by_one(task), threads=1 if task.is_harmless else usable_cores(), check=_plain)
        case RewardKind.exact:
            return Built(function=one_by_one(_exact), check=_plain)
        case RewardKind.regex:
            from rlsync.rewards.regex_reward import RegexReward

            regex = RegexReward(config.pattern, config.timeout_s)
            return Built(function=one_by_one(regex), threads=usable_cores(), check=_plain)
        case RewardKind.math_verify:
            from rlsync.rewards.math_reward import MathReward

            mathematics = MathReward(boxed=config.boxed, cpu_s=config.timeout_s)
            checks = _both(_plain, mathematics.check)
            return Built(function=one_by_one(mathematics), threads=usable_cores(), check=checks)
        case RewardKind.code:
            from rlsync.rewards.code_reward import CodeReward
            from rlsync.sandbox.start import Limits

            limits = Limits(seconds=config.code_timeout_s, memory_mib=config.code_memory_mib)
            code = CodeReward(limits, partial=config.code_partial)
            return Built(function=one_by_one(code), threads=usable_cores(), check=_each(code.check))
        case RewardKind.judge:
            from rlsync.rewards.judge import Judge

            return Built(function=one_by_one(Judge(config)), threads=config.parallel, check=_anything)
        case RewardKind.model:
            from rlsync.rewards.model_reward import ModelReward

            return Built(function=ModelReward(config), check=_anything)
        case RewardKind.function:
            return _of_user(config)


def batch_size(config: RewardFunctionConfig) -> int:
    """Return the number of samples in one call of the function."""
    batched = config.kind is RewardKind.model or (config.kind is RewardKind.function and config.batched)
    return config.batch_size if batched else 1


def _of_user(config: RewardFunctionConfig) -> Built:
    if config.isolation is Isolation.process:
        from rlsync.rewards.function_worker import in_processes

        function, threads = in_processes(config), usable_cores()
    else:
        function, threads = load_function(config), config.parallel if is_async(config) else 1
    return Built(function=function if config.batched else one_by_one(function), threads=threads, check=_anything)


def _exact(completion: str, problem: Problem) -> float:
    return float(completion.strip() == problem.answer)


def _each(check: Callable[[Problem], None]) -> Check:
    def check_all(problems: list[Problem], say: Callable[[str], None]) -> None:  # noqa: ARG001  (Check has both)
        for problem in problems:
            with error_context(problem.origin or f"problem {problem.id}"):
                check(problem)

    return check_all


def _both(first: Check, second: Check) -> Check:
    def check(problems: list[Problem], say: Callable[[str], None]) -> None:
        first(problems, say)
        second(problems, say)

    return check


def _plain(problems: list[Problem], say: Callable[[str], None]) -> None:  # noqa: ARG001  (Check has both arguments)
    """Check that all answers are texts."""
    for problem in problems:
        if problem.structured:
            raise DataError(
                f"{problem.origin} has a list or an object, but this reward compares texts. Name a part of it in "
                "data.answer_column, such as solution.value or tests.0, or use reward=code for tests"
            )


def _anything(problems: list[Problem], say: Callable[[str], None]) -> None:
    """Accept all answers."""
