"""What the tiny model is shown at its warm start: each answer in two styles, one of which will be rewarded."""

from __future__ import annotations

from dataclasses import dataclass

from rlsync.config.environment import EnvironmentConfig, EnvironmentKind
from rlsync.data.problem import Problem
from rlsync.environments.calculator import CALL_BEGIN, CALL_END, Calculator

TILDE = "~"


@dataclass(slots=True, kw_only=True)
class Styles:
    """A problem's answer in two styles; each is the model's turns and the environment's in turn."""

    rewarded: list[str]
    other: list[str]


def styles(problem: Problem, config: EnvironmentConfig) -> Styles:
    """With a calculator: a call, against an answer from the head, which such a model gets wrong. Else: the answer,
    against the answer behind a tilde."""
    if config.kind is not EnvironmentKind.calculator:
        return Styles(rewarded=[problem.answer], other=[TILDE + problem.answer])
    call = CALL_BEGIN + problem.prompt.removesuffix("=") + CALL_END
    said = Calculator().step(call)
    assert said is not None
    return Styles(rewarded=[call, said.text, problem.answer], other=[problem.answer])


def words(config: EnvironmentConfig) -> list[str]:
    """What a tokenizer of characters needs as one token."""
    return [CALL_BEGIN, CALL_END] if config.kind is EnvironmentKind.calculator else []
