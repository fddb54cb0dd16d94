"""Demonstrations for the tiny model's warm start: each answer in two styles, of which the reward accepts one."""

from __future__ import annotations

from dataclasses import dataclass

from rlsync.config.environment import EnvironmentConfig, EnvironmentKind
from rlsync.data.problem import Problem
from rlsync.environments.calculator import CALL_BEGIN, CALL_END, Calculator

TILDE = "~"


@dataclass(slots=True, kw_only=True)
class Styles:
    """A problem's answer in two styles; each is a list of the model's turns and the environment's messages."""

    rewarded: list[str]
    other: list[str]


def styles(problem: Problem, config: EnvironmentConfig) -> Styles:
    """Return the demonstrations of a problem.

    With the calculator, the rewarded style is a call, and the other is an answer without a call, which the tiny model
    gets wrong. Otherwise the rewarded style is the plain answer, and the other is the answer after a tilde.
    """
    if config.kind is not EnvironmentKind.calculator:
        return Styles(rewarded=[problem.answer], other=[TILDE + problem.answer])
    call = CALL_BEGIN + problem.prompt.removesuffix("=") + CALL_END
    said = Calculator().step(call)
    assert said is not None
    return Styles(rewarded=[call, said.text, problem.answer], other=[problem.answer])


def words(config: EnvironmentConfig) -> list[str]:
    """Return the texts that a character tokenizer must have as one token."""
    return [CALL_BEGIN, CALL_END] if config.kind is EnvironmentKind.calculator else []
