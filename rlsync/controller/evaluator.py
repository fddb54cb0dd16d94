"""Answer held-out problems, greedily and by samples, and count what is right. Knows neither Ray nor vLLM."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from rlsync.config.run import TrainConfig
from rlsync.data.hashing import digest
from rlsync.data.problem import Problem
from rlsync.data.text import TextCodec
from rlsync.environments.conversation import Start
from rlsync.environments.conversation_player import ConversationPlayer, Generator
from rlsync.rewards.scorer import Scorer
from rlsync.samples import Episode, FinishReason, Rollout, Score

FULL_REWARD = 1.0 - 1e-9
"""A response with at least this reward is right. A little under 1: weighted sums such as 0.7 + 0.2 + 0.1 round."""


@dataclass(slots=True, kw_only=True)
class EvalSet:
    """Held-out problems with a name, and what reads and scores them."""

    name: str
    problems: list[Problem]
    codec: TextCodec
    scorer: Scorer


@dataclass(slots=True, kw_only=True)
class Response:
    problem: Problem
    sample: int | None
    """Number of the drawn response to its problem; None for the greedy one."""
    episode: Episode
    score: Score

    @property
    def rollout(self) -> Rollout:
        return self.episode.rollout

    @property
    def right(self) -> bool:
        return self.score.reward is not None and self.score.reward >= FULL_REWARD


@dataclass(slots=True, kw_only=True)
class Stats:
    """Of the responses of one kind, greedy or drawn."""

    right: float
    """Share of responses with the full reward: accuracy of the greedy ones, mean@k of k drawn to each problem."""
    reward_mean: float
    """Of the responses that have a reward; 0 if none has."""
    length_mean: float
    truncated_share: float
    errors: int
    """Responses without a reward: the scorer or the environment failed. They count as wrong, so `right` is a bound."""


@dataclass(slots=True, kw_only=True)
class SetResult:
    name: str
    problems: int
    samples: int
    """Drawn responses to each problem."""
    greedy: Stats
    drawn: Stats | None = None
    pass_at: dict[int, float] = field(default_factory=dict)
    """k -> pass@k of the drawn responses."""
    responses: list[Response] = field(default_factory=list)

    @property
    def errors(self) -> int:
        """Of all its responses."""
        return self.greedy.errors + (self.drawn.errors if self.drawn is not None else 0)

    def metrics(self) -> dict[str, float]:
        """What one set adds to a step's metrics."""
        values = {f"eval/{self.name}/accuracy": self.greedy.right, f"eval/{self.name}/errors": self.errors}
        if self.drawn is not None:
            values[f"eval/{self.name}/mean@{self.samples}"] = self.drawn.right
            values |= {f"eval/{self.name}/pass@{k}": value for k, value in self.pass_at.items()}
        return values


class Evaluator:
    """Evaluates whatever weights the rollout engines hold."""

    def __init__(self, config: TrainConfig, rollouts: Generator, sets: list[EvalSet]) -> None:
        self._config, self._player, self._sets = (
            config,
            ConversationPlayer(config.environment, config.rollout, rollouts),
            sets,
        )

    def run(self) -> list[SetResult]:
        return [self._evaluate(each) for each in self._sets]

    def metrics(self, suffix: str = "") -> dict[str, float]:
        """Evaluate; metric keys end in `suffix`. Empty where there is nothing to evaluate."""
        results = self.run()
        if not results:
            return {}
        values = {"eval/accuracy": results[0].greedy.right}
        for result in results:
            values |= result.metrics()
        return {key + suffix: value for key, value in values.items()} | {
            "eval/problems": sum(result.problems for result in results)
        }

    def _evaluate(self, each: EvalSet) -> SetResult:
        samples = self._config.eval.samples
        asked: list[tuple[Problem, int | None]] = [(problem, None) for problem in each.problems]
        asked += [(problem, sample) for problem in each.problems for sample in range(samples)]
        starts = [self._start(each, problem, sample) for problem, sample in asked]
        with each.scorer.start([problem for problem, _ in asked]) as scoring:
            episodes = self._player.play(starts, each.codec, scoring.take)
            scores = scoring.finish()
        responses = [
            Response(problem=problem, sample=sample, episode=episode, score=score)
            for (problem, sample), episode, score in zip(asked, episodes, scores, strict=True)
        ]
        greedy, drawn = responses[: len(each.problems)], responses[len(each.problems) :]
        right = [sum(r.right for r in drawn[i : i + samples]) for i in range(0, len(drawn), max(1, samples))]
        return SetResult(
            name=each.name,
            problems=len(each.problems),
            samples=samples,
            greedy=_stats(greedy),
            drawn=_stats(drawn) if drawn else None,
            pass_at={k: _mean([pass_at_k(samples, c, k) for c in right]) for k in self._config.eval.k if drawn},
            responses=responses,
        )

    def _start(self, each: EvalSet, problem: Problem, sample: int | None) -> Start:
        seed = 0 if sample is None else draw_seed(self._config.seed, each.name, problem, sample)
        return Start(problem=problem, seed=seed, greedy=sample is None)


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Chance that k of the samples, drawn without replacement, hold a right one (arXiv 2107.03374, eq. 1).

    Over problems its mean is an unbiased estimate of pass@k.

    Args:
        samples: responses to the problem, at least k.
        right: how many of them are right.
    """
    return 1.0 - math.comb(samples - right, k) / math.comb(samples, k)


def draw_seed(seed: int, name: str, problem: Problem, sample: int) -> int:
    """A drawn response's seed, 0 <= seed < 2^63: the same whatever else is evaluated, and at every step."""
    return digest("eval", seed, name, problem.id, sample) >> 1


def _stats(responses: list[Response]) -> Stats:
    given = [response.score.reward for response in responses if response.score.reward is not None]
    return Stats(
        right=_mean([response.right for response in responses]),
        reward_mean=_mean(given) if given else 0.0,
        length_mean=_mean([response.rollout.num_sampled for response in responses]),
        truncated_share=_mean([response.rollout.finish_reason is FinishReason.length for response in responses]),
        errors=len(responses) - len(given),
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
