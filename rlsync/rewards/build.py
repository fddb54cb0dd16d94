"""From a reward's config to its function."""

from __future__ import annotations

import os
import re

from rlsync.config.reward import RewardFunctionConfig, RewardKind
from rlsync.data.source import ProblemSource
from rlsync.rewards.functions import BatchFunction, RewardFunction, is_async, load_function, one_by_one
from rlsync.types import Problem


def batch_function(config: RewardFunctionConfig, source: ProblemSource) -> BatchFunction:
    """f(completions, problems) -> numbers. Modules that take long to import are left to those who want them.

    Raises:
        ConfigError: the user's function cannot be loaded, or programs cannot be confined here.
    """
    if config.batched:
        return load_function(config)
    if config.kind is RewardKind.model:
        from rlsync.rewards.model_reward import ModelReward

        return ModelReward(config)
    return one_by_one(_single_function(config, source))


def _single_function(config: RewardFunctionConfig, source: ProblemSource) -> RewardFunction:
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
            return load_function(config)
        case RewardKind.math_verify:
            from rlsync.rewards.math_reward import MathReward

            return MathReward()
        case RewardKind.model:
            raise AssertionError("a reward model takes many samples a call")


def batch_size(config: RewardFunctionConfig) -> int:
    """Samples of a call."""
    return config.batch_size if config.batched or config.kind is RewardKind.model else 1


def threads(config: RewardFunctionConfig) -> int:
    """Calls at a time: programs are processes, one a core; requests and what is async wait for others; what else there
    is may not bear threads."""
    match config.kind:
        case RewardKind.code:
            return os.cpu_count() or 1
        case RewardKind.judge:
            return config.parallel
        case RewardKind.function:
            return config.parallel if is_async(config) else 1
        case _:
            return 1


def _regex(pattern: re.Pattern[str]) -> RewardFunction:
    def reward(completion: str, problem: Problem) -> float:
        matches = list(pattern.finditer(completion))
        if not matches or not pattern.groups:
            return float(bool(matches))
        return float((matches[-1].group(1) or "").strip() == problem.answer.strip())

    return reward
