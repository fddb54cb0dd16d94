"""One sample on its way through a step: request, rollout, episode, score, and what its loss needs.

Shapes: T tokens of one sequence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

import torch

from rlsync.data.problem import Problem


class FinishReason(StrEnum):
    stop = "stop"
    """The model sampled a stop token."""
    length = "length"
    """The response reached the token limit."""
    turns = "turns"
    """The conversation reached environment.max_turns."""
    error = "error"
    """The environment failed."""


@dataclass(slots=True, kw_only=True)
class RolloutRequest:
    prompt: list[int]
    """Token ids."""
    seed: int
    """0 <= seed < 2^63; with weights and prompt it determines the response."""
    max_tokens: int
    stop_ids: list[int]
    greedy: bool = False
    """Take the most probable token instead of drawing."""


@dataclass(slots=True, kw_only=True)
class Rollout:
    """A finished sequence, prompt and response, as the rollout engine produced it.

    Between the turns of a conversation stand tokens that were not sampled: the environment's.
    """

    tokens: torch.Tensor
    """[T] int64."""
    sampled: torch.Tensor
    """[T] bool: the model's own tokens."""
    logprobs: torch.Tensor
    """[T] float32: decode-time log-prob of each sampled token; 0 where not sampled."""
    weight_version: torch.Tensor
    """[T] int32: version of the weights that sampled each token; -1 where not sampled."""
    seed: int
    finish_reason: FinishReason

    @property
    def num_sampled(self) -> int:
        return int(self.sampled.sum())

    @property
    def response(self) -> list[int]:
        """The model's own tokens."""
        return self.tokens[self.sampled].tolist()

    @property
    def prompt_length(self) -> int:
        """Tokens before the first that was sampled."""
        return int(self.sampled.nonzero()[0])


@dataclass(slots=True, kw_only=True)
class Episode:
    """A rollout with what was said in it; of one turn where there is no environment."""

    rollout: Rollout
    turns: list[str]
    """Texts after the prompt, without special tokens: the model's and the environment's in turn, the model's first."""
    scored: str
    """What the reward functions read."""
    tool_calls: int = 0
    """Calls that the environment answered."""
    error: str | None = None
    """Why the environment failed, if it did."""

    @property
    def model_turns(self) -> int:
        return (len(self.turns) + 1) // 2


@dataclass(slots=True, kw_only=True)
class Score:
    """What a reward function said of one rollout."""

    reward: float | None
    """None where there is none: the reward function or the environment failed."""
    error: str | None = None
    """Why there is no reward."""
    parts: dict[str, float] = field(default_factory=dict)
    """For a weighted sum the number that each function gave, by name."""

    @property
    def reward_or_nan(self) -> float:
        return math.nan if self.reward is None else self.reward


@dataclass(slots=True, kw_only=True)
class ValueTarget:
    """What the critic's loss needs, at each sampled token; 0 where not sampled."""

    old: torch.Tensor
    """[T] float32: the value before the step of what the token was sampled after."""
    returns: torch.Tensor
    """[T] float32: what the value should be."""


@dataclass(slots=True, kw_only=True)
class TrainSample:
    """One rollout with what its loss needs: what the trainer packs."""

    rollout: Rollout
    advantage: torch.Tensor | None = None
    """[T] advantage of each sampled token, 0 where not sampled; None where only a forward pass is wanted."""
    value: ValueTarget | None = None
    """Given where there is a critic to train."""
    trained: bool = True
    """False for a rollout without a reward: its tokens are compared, and enter no loss, statistic or critic target."""


@dataclass(slots=True, kw_only=True)
class Sample:
    """One response on its way through a step. `reward`, `advantage` and `value` are filled in one after the other."""

    problem: Problem
    episode: Episode
    score: Score
    reward: torch.Tensor | None = None
    """[T] float64: the reward that each token is trained on, 0 where not sampled. NaN at the last sampled token of a
    sample without a score."""
    advantage: torch.Tensor | None = None
    """[T] advantage of each sampled token, 0 where not sampled: float64, or float32 from a critic."""
    value: ValueTarget | None = None
    """Given where there is a critic to train."""

    @property
    def rollout(self) -> Rollout:
        return self.episode.rollout

    @property
    def trained(self) -> bool:
        """Whether the sample has a reward to learn from."""
        return self.score.reward is not None

    def for_training(self) -> TrainSample:
        """What the trainer is given of the sample."""
        return TrainSample(rollout=self.rollout, advantage=self.advantage, value=self.value, trained=self.trained)
