"""From a reward's config to its function."""

from __future__ import annotations

import os
import re

from rlsync.config.reward import RewardFunctionConfig, RewardKind
from rlsync.data.source import ProblemSource
from rlsync.rewards.functions import RewardFunction, load_function
from rlsync.types import Problem


def reward_function(config: RewardFunctionConfig, source: ProblemSource) -> RewardFunction:
    """f(completion, problem) -> float. Modules that take long to import are left to those who want them.

    Raises:
        ConfigError: the user's function cannot be loaded, or programs cannot be confined here.
    """
    match config.kind:
        case RewardKind.task:
            return lambda completion, problem: source.score(problem, completion)
        case RewardKind.exact:
            return lambda completion, problem: float(completion.strip() == problem.answer)
        case RewardKind.regex:
            return _regex(re.compile(config.pattern, re.DOTALL))
        case RewardKind.code:
            from rlsync.rewards.code_reward import CodeReward
            from rlsync.rewards.sandbox import Limits

            limits = Limits(seconds=config.code_timeout_s, memory_mib=config.code_memory_mib)
            return CodeReward(limits, partial=config.code_partial)
        case RewardKind.judge:
            from rlsync.rewards.judge import Judge

            return Judge(config)
        case RewardKind.function:
            return load_function(config.function)
        case RewardKind.math_verify:
            from rlsync.rewards.math_reward import MathReward

            return MathReward()


def samples_at_a_time(config: RewardFunctionConfig) -> int:
    """Programs are processes, one a core; requests wait for others; what else there is may not bear threads."""
    match config.kind:
        case RewardKind.code:
            return os.cpu_count() or 1
        case RewardKind.judge:
            return config.judge_parallel
        case _:
            return 1


def _regex(pattern: re.Pattern[str]) -> RewardFunction:
    def reward(completion: str, problem: Problem) -> float:
        matches = list(pattern.finditer(completion))
        if not matches or not pattern.groups:
            return float(bool(matches))
        return float((matches[-1].group(1) or "").strip() == problem.answer.strip())

    return reward
