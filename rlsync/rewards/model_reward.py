"""The driver's side of a reward model, which runs in its own actor."""

from __future__ import annotations

import logging
from typing import Protocol

from rlsync.config.reward import RewardFunctionConfig
from rlsync.data.problem import Problem
from rlsync.rewards.reward_model import ModelScores, check_reward_model

logger = logging.getLogger(__name__)


class ScoreTexts(Protocol):
    """Scores completions with the reward model."""

    def __call__(self, prompts: list[str], completions: list[str]) -> ModelScores:
        """Score one completion of each prompt."""
        ...


class ModelReward:
    """f(completions, problems) -> rewards. It can be called after it has been connected to the model's actor.

    Raises:
        ConfigError: As check_reward_model.
    """

    def __init__(self, config: RewardFunctionConfig) -> None:
        check_reward_model(config)
        self.config = config
        self._score: ScoreTexts | None = None

    def connect(self, score: ScoreTexts) -> None:
        """Connect the reward to the model's actor."""
        self._score = score

    def __call__(self, completions: list[str], problems: list[Problem]) -> list[float]:
        """Score one completion of each problem."""
        assert self._score is not None, "a reward model was called before its process had started"
        scores = self._score([problem.prompt for problem in problems], completions)
        if scores.truncated:
            logger.warning(
                "the reward model read only the last %d tokens of %d of %d samples (reward.model_max_tokens)",
                self.config.model_max_tokens, scores.truncated, len(completions),
            )  # fmt: skip
        return scores.rewards
