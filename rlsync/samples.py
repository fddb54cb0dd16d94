"""The records of a sample on its way through a step: request, rollout, episode, score, and the inputs of its loss.

Shapes: T tokens of one sequence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

import torch

from rlsync.data.problem import Problem


class FinishReason(StrEnum):
    """Why a rollout ended."""

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
    """One prompt to be answered by a rollout engine."""

    prompt: list[int]
    """Token ids of the prompt."""
    seed: int
    """Seed of the draws, 0 <= seed < 2^63. Weights, prompt and seed together determine the response."""
    max_tokens: int
    """Largest number of tokens to sample."""
    stop_ids: list[int]
    """Token ids that end the response."""
    greedy: bool = False
    """Choose the most probable token instead of drawing one."""


@dataclass(slots=True, kw_only=True)
class Rollout:
    """A finished sequence, prompt and response, as the rollout engine produced it.

    In a conversation, the tokens of the environment's messages lie between the model's turns and are not sampled.
    """

    tokens: torch.Tensor
    """[T] int64: token ids of the prompt, the model's turns and the environment's messages."""
    sampled: torch.Tensor
    """[T] bool: True for the tokens that the model sampled."""
    logprobs: torch.Tensor
    """[T] float32: log-prob that each sampled token had at decoding; 0 where not sampled."""
    weight_version: torch.Tensor
    """[T] int32: version of the weights that sampled each token; -1 where not sampled."""
    seed: int
    """Seed of the request."""
    finish_reason: FinishReason
    """Why the rollout ended."""
    row_digests: torch.Tensor | None = None
    """[T] int64: digest of all logits of the row from which each token was sampled; 0 where not sampled. None if the
    engine makes none, as with kernels=native."""

    @property
    def num_sampled(self) -> int:
        """Number of tokens that the model sampled."""
        return int(self.sampled.sum())

    @property
    def response(self) -> list[int]:
        """Token ids that the model sampled."""
        return self.tokens[self.sampled].tolist()

    @property
    def prompt_length(self) -> int:
        """Number of tokens before the first sampled one."""
        return int(self.sampled.nonzero()[0])


@dataclass(slots=True, kw_only=True)
class Episode:
    """A rollout together with its texts. Without an environment it has one turn."""

    rollout: Rollout
    turns: list[str]
    """Texts after the prompt, without special tokens. The model's turns and the environment's messages alternate, and
    the model begins."""
    scored: str
    """The text that reward functions read."""
    tool_calls: int = 0
    """Number of tool calls that the environment answered."""
    error: str | None = None
    """Why the environment failed; None if it did not."""

    @property
    def model_turns(self) -> int:
        """Number of turns that the model took."""
        return (len(self.turns) + 1) // 2


@dataclass(slots=True, kw_only=True)
class Score:
    """The result of a reward function for one rollout."""

    reward: float | None
    """The score; None if the reward function or the environment failed."""
    error: str | None = None
    """Why there is no reward."""
    parts: dict[str, float] = field(default_factory=dict)
    """The score of each function of a weighted sum, by name."""

    @property
    def reward_or_nan(self) -> float:
        """The reward, or NaN if there is none."""
        return math.nan if self.reward is None else self.reward


@dataclass(slots=True, kw_only=True)
class ValueTarget:
    """Inputs of the critic's loss at each sampled token; 0 where not sampled."""

    old: torch.Tensor
    """[T] float32: the critic's value, before the step, of the text that precedes the token."""
    returns: torch.Tensor
    """[T] float32: the target of the value."""


@dataclass(slots=True, kw_only=True)
class TrainSample:
    """One rollout with the inputs of its loss, as the trainer packs it."""

    rollout: Rollout
    advantage: torch.Tensor | None = None
    """[T]: advantage of each sampled token, 0 where not sampled; None if only a forward pass is needed."""
    value: ValueTarget | None = None
    """Targets of the critic; None if the run has no critic."""
    trained: bool = True
    """False for a rollout without a reward: the monitor compares its tokens, but they enter no loss, statistic or
    critic target."""


@dataclass(slots=True, kw_only=True)
class Sample:
    """One response on its way through a step. The fields `reward`, `advantage` and `value` are filled in that order."""

    problem: Problem
    episode: Episode
    score: Score
    reward: torch.Tensor | None = None
    """[T] float64: the reward that each token is trained on, 0 where not sampled. NaN at the last sampled token of a
    sample without a score."""
    advantage: torch.Tensor | None = None
    """[T]: advantage of each sampled token, 0 where not sampled. float64, or float32 if a critic is used."""
    value: ValueTarget | None = None
    """Targets of the critic; None if the run has no critic."""

    @property
    def rollout(self) -> Rollout:
        """The rollout of the sample's episode."""
        return self.episode.rollout

    @property
    def trained(self) -> bool:
        """Whether the sample has a reward to learn from."""
        return self.score.reward is not None

    def for_training(self) -> TrainSample:
        """The part of the sample that the trainer receives."""
        return TrainSample(rollout=self.rollout, advantage=self.advantage, value=self.value, trained=self.trained)
