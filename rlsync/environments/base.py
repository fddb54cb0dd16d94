"""What an environment is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from rlsync.data.problem import Problem


@dataclass(slots=True, kw_only=True)
class Observation:
    """What the environment says to a turn."""

    text: str
    tool_calls: int = 1
    """Calls of the turn that it answers; 0 where it is no tool that speaks."""


class Environment(ABC):
    """The other side of one conversation. Each conversation has an instance of its own, which may keep state.

    Methods may raise and may take their time, in a thread: it costs the conversation alone, and is counted.
    """

    def reset(self, problem: Problem) -> str:
        """Begin; returns what the model is asked, in place of `problem.prompt`."""
        return problem.prompt

    @abstractmethod
    def step(self, action: str) -> Observation | None:
        """Answer a turn.

        Args:
            action: the model's text since the environment last spoke, without special tokens.
        Returns:
            None when the conversation is over: the turn was the model's answer.
        """
