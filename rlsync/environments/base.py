"""The base class of environments."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from rlsync.data.problem import Problem


@dataclass(slots=True, kw_only=True)
class Observation:
    """The environment's message after a turn of the model."""

    text: str
    tool_calls: int = 1
    """Number of tool calls that the message answers; 0 if it is not the result of a tool."""


class Environment(ABC):
    """Answers the model in one conversation. Each conversation has its own instance, which may keep state.

    Methods are called in a thread. If one raises or takes longer than environment.timeout_s, only its conversation ends
    with an error, which is counted.
    """

    def reset(self, problem: Problem) -> str:
        """Begin the conversation, and return the prompt that the model reads in place of `problem.prompt`."""
        return problem.prompt

    @abstractmethod
    def step(self, action: str) -> Observation | None:
        """Answer a turn.

        Args:
            action: The model's text since the environment's last message, without special tokens.

        Returns:
            The message, or None to end the conversation, with this turn as the model's answer.
        """
