"""Answer held-out problems, greedily and by sampling, and count right answers. Knows neither Ray nor vLLM."""

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
"""A response with at least this reward is right. It is a little below 1, because weighted sums such as 0.7 + 0.2 + 0.1
are rounded."""


@dataclass(slots=True, kw_only=True)
class EvalSet:
    """A named set of held-out problems, with the codec and the scorer for them."""

    name: str
    problems: list[Problem]
    codec: TextCodec
    scorer: Scorer


@dataclass(slots=True, kw_only=True)
class Response:
    """A scored response to a held-out problem."""

    problem: Problem
    sample: int | None
    """Number of the sampled response to its problem; None for the greedy response."""
    episode: Episode
    score: Score

    @property
    def rollout(self) -> Rollout:
        """The rollout of the episode."""
        return self.episode.rollout

    @property
    def right(self) -> bool:
        """Whether the response has the full reward."""
        return self.score.reward is not None and self.score.reward >= FULL_REWARD


@dataclass(slots=True, kw_only=True)
class Stats:
    """Statistics of a set's greedy responses, or of its sampled responses."""

    right: float
    """Share of responses with the full reward: the accuracy if greedy, mean@k with k sampled responses to each
    problem."""
    reward_mean: float
    """Mean over the responses that have a reward; 0 if none has."""
    length_mean: float
    """Mean number of sampled tokens."""
    truncated_share: float
    """Share of responses that reached the length limit."""
    errors: int
    """Number of responses without a reward, because the scorer or the environment failed. They count as wrong, so
    `right` is a lower bound."""


@dataclass(slots=True, kw_only=True)
class SetResult:
    """Result of one evaluation set."""

    name: str
    problems: int
    """Number of problems."""
    samples: int
    """Number of sampled responses to each problem."""
    greedy: Stats
    drawn: Stats | None = None
    pass_at: dict[int, float] = field(default_factory=dict)
    """Value of pass@k of the sampled responses for each k."""
    responses: list[Response] = field(default_factory=list)

    @property
    def errors(self) -> int:
        """Number of responses without a reward, greedy and sampled."""
        return self.greedy.errors + (self.drawn.errors if self.drawn is not None else 0)

    def metrics(self) -> dict[str, float]:
        """Return the set's metrics of a step."""
        values = {f"eval/{self.name}/accuracy": self.greedy.right, f"eval/{self.name}/errors": self.errors}
        if self.drawn is not None:
            values[f"eval/{self.name}/mean@{self.samples}"] = self.drawn.right
            values |= {f"eval/{self.name}/pass@{k}": value for k, value in self.pass_at.items()}
        return values


class Evaluator:
    """Evaluates the weights that the rollout engines currently have."""

    def __init__(self, config: TrainConfig, rollouts: Generator, sets: list[EvalSet]) -> None:
        self._config, self._player, self._sets = (
            config,
            ConversationPlayer(config.environment, config.rollout, rollouts),
            sets,
        )

    def run(self) -> list[SetResult]:
        """Evaluate all sets."""
        return [self._evaluate(each) for each in self._sets]

    def metrics(self, suffix: str = "") -> dict[str, float]:
        """Evaluate all sets and return metrics, whose keys end in `suffix`; empty if there is no set."""
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
    """Return the probability that k of the responses, drawn without replacement, include a right one.

    The mean over problems is an unbiased estimate of pass@k (arXiv 2107.03374, eq. 1).

    Args:
        samples: Number of responses to the problem, at least k.
        right: Number of right responses.
        k: Number of responses that are drawn.
    """
    return 1.0 - math.comb(samples - right, k) / math.comb(samples, k)


def draw_seed(seed: int, name: str, problem: Problem, sample: int) -> int:
    """Return the seed of a sampled response, 0 <= seed < 2^63. It does not depend on other problems or on the step."""
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
