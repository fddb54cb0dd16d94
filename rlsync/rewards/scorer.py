"""Rewards of samples, whichever function gives them."""

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
    """Scores samples with the function that the config names, or with the weighted sum of several.

    Raises:
        ConfigError: a function cannot be loaded.
    """

    def __init__(self, config: RewardConfig, source: ProblemSource) -> None:
        self._parts = [Part(name, part.weight, part, source) for name, part in config.parts.items()]
        self._sums, self._finish_timeout_s = bool(self._parts), config.finish_timeout_s
        if not self._sums:
            self._parts = [Part(config.function or config.kind, 1.0, config, source)]

    @property
    def models(self) -> list[ModelReward]:
        """Those of its functions that wait for a process."""
        return [part.function for part in self._parts if isinstance(part.function, ModelReward)]

    def check(self, problems: list[Problem], say: Callable[[str], None]) -> None:
        """Look at the answers of problems that are to be scored, before anything starts.

        Args:
            say: gets what will not work although the run can go on.
        Raises:
            DataError: a reward function cannot read one of them.
        """
        for part in self._parts:
            part.check(problems, say)

    def start(self, problems: list[Problem]) -> Scoring:
        """Scoring of one sample of each problem, as they are finished."""
        return Scoring(self._parts, problems, sums=self._sums, timeout_s=self._finish_timeout_s)

    def score(self, problems: list[Problem], completions: list[str]) -> list[Score]:
        """Of samples that are all finished: one score each; one on which a function fails has no reward, but the error.

        Raises:
            RewardError: no sample has a reward.
        """
        with self.start(problems) as scoring:
            for index, (_, completion) in enumerate(zip(problems, completions, strict=True)):
                scoring.add(index, completion)
            return scoring.finish()


def shuffle_rewards(scores: list[Score], seed: int) -> list[Score]:
    """The rewards permuted among the samples that have one, the same way for the same seed."""
    own = [index for index, score in enumerate(scores) if score.reward is not None]
    order = sorted(own, key=lambda index: digest("shuffle_rewards", seed, index))
    others = dict(zip(own, order, strict=True))
    return [Score(reward=scores[others.get(index, index)].reward, error=s.error) for index, s in enumerate(scores)]
