"""Scores of episodes: a conversation that its environment failed has none."""

from __future__ import annotations

from typing import Protocol

from rlsync.types import Episode, Problem, Score


class Scores(Protocol):
    def score(self, problems: list[Problem], completions: list[str]) -> list[Score]: ...


def score_episodes(scorer: Scores, problems: list[Problem], episodes: list[Episode]) -> list[Score]:
    """One score per episode, in order; no reward but the environment's error where that failed.

    Raises:
        RewardError: a reward function failed on every episode that it was given.
    """
    whole = [index for index, episode in enumerate(episodes) if episode.error is None]
    scores = scorer.score([problems[i] for i in whole], [episodes[i].scored for i in whole])
    scored = dict(zip(whole, scores, strict=True))
    failed = {i: Score(reward=None, error=episode.error) for i, episode in enumerate(episodes) if i not in scored}
    return [(scored | failed)[index] for index in range(len(episodes))]
