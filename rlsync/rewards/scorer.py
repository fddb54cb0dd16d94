"""Score samples with the configured reward functions."""

from __future__ import annotations

from collections.abc import Callable

from rlsync.config.reward import RewardConfig
from rlsync.data.hashing import digest
from rlsync.data.problem import Problem
from rlsync.data.source import ProblemSource
from rlsync.rewards.model_reward import ModelReward
from rlsync.rewards.scoring import Scoring
from rlsync.rewards.weighted import Part
from rlsync.samples import Score


class Scorer:
    """Scores samples with one reward function, or with the weighted sum of several.

    Args:
        config: Configuration of the reward.
        source: Source of the problems.

    Raises:
        ConfigError: A function cannot be loaded.
    """

    def __init__(self, config: RewardConfig, source: ProblemSource) -> None:
        self._parts = [Part(name, part.weight, part, source) for name, part in config.parts.items()]
        self._sums, self._finish_timeout_s = bool(self._parts), config.finish_timeout_s
        if not self._sums:
            self._parts = [Part(config.function or config.kind, 1.0, config, source)]

    @property
    def models(self) -> list[ModelReward]:
        """The functions that must be connected to a reward model's actor."""
        return [part.function for part in self._parts if isinstance(part.function, ModelReward)]

    def check(self, problems: list[Problem], say: Callable[[str], None]) -> None:
        """Check the answers of problems before any actor is started.

        Args:
            problems: Problems whose responses will be scored.
            say: Tells the user of problems that will not work, although the run can start.

        Raises:
            DataError: A reward function cannot read an answer.
        """
        for part in self._parts:
            part.check(problems, say)

    def start(self, problems: list[Problem]) -> Scoring:
        """Start scoring one sample of each problem; each is scored when it is finished."""
        return Scoring(self._parts, problems, sums=self._sums, timeout_s=self._finish_timeout_s)

    def score(self, problems: list[Problem], completions: list[str]) -> list[Score]:
        """Score samples that are all finished. If a function fails for a sample, its score has the error and no reward.

        Raises:
            RewardError: No sample has a reward.
        """
        with self.start(problems) as scoring:
            for index, (_, completion) in enumerate(zip(problems, completions, strict=True)):
                scoring.add(index, completion)
            return scoring.finish()


def shuffle_rewards(scores: list[Score], seed: int) -> list[Score]:
    """Permute the rewards among the samples that have one; the permutation depends only on the seed."""
    own = [index for index, score in enumerate(scores) if score.reward is not None]
    order = sorted(own, key=lambda index: digest("shuffle_rewards", seed, index))
    others = dict(zip(own, order, strict=True))
    return [Score(reward=scores[others.get(index, index)].reward, error=s.error) for index, s in enumerate(scores)]
