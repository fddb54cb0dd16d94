"""The scored samples of a step: prompts -> rollouts -> rewards, again while dynamic sampling finds too few groups."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch

from rlsync.algorithms.shaping import overlong_reward
from rlsync.config.algorithm import KlPlace
from rlsync.config.run import TrainConfig
from rlsync.controller.metrics import episode_metrics
from rlsync.data.problem import Problem
from rlsync.data.prompts import PromptStream
from rlsync.data.text import TextCodec
from rlsync.environments.conversation import Start
from rlsync.environments.conversation_player import ConversationPlayer, Generator
from rlsync.rewards.scorer import Scorer, shuffle_rewards
from rlsync.samples import Episode, Rollout, Score
from rlsync.telemetry.metrics import Metrics, StepTimes


@dataclass(slots=True, kw_only=True)
class Group:
    """The responses to one prompt."""

    problem: Problem
    episodes: list[Episode]
    scores: list[Score]

    @property
    def rollouts(self) -> list[Rollout]:
        return [episode.rollout for episode in self.episodes]

    @property
    def given(self) -> list[float]:
        """Rewards of the samples that have one."""
        return [score.reward for score in self.scores if score.reward is not None]

    @property
    def has_signal(self) -> bool:
        return len(set(self.given)) > 1


@dataclass(slots=True, kw_only=True)
class Batch:
    """What a step trains on; lists of samples go group after group."""

    groups: list[Group]
    drawn: list[Group]
    """All groups that were drawn for it, `groups` among them."""
    rounds: int = 0
    """Of resampling, after the first draw."""
    failed: bool = False
    """No group had a signal, so the last ones are in it although they teach nothing."""

    @property
    def problems(self) -> list[Problem]:
        return [group.problem for group in self.groups for _ in group.rollouts]

    @property
    def rollouts(self) -> list[Rollout]:
        return [episode.rollout for episode in self.episodes]

    @property
    def episodes(self) -> list[Episode]:
        return [episode for group in self.groups for episode in group.episodes]

    @property
    def scores(self) -> list[Score]:
        return [score for group in self.groups for score in group.scores]

    @property
    def rewards(self) -> torch.Tensor:
        """[P, G] float64; NaN where a sample has no reward."""
        rows = [
            [torch.nan if score.reward is None else score.reward for score in group.scores] for group in self.groups
        ]
        return torch.tensor(rows, dtype=torch.float64)

    @property
    def tokens_drawn(self) -> int:
        return sum(rollout.num_sampled for group in self.drawn for rollout in group.rollouts)

    def metrics(self) -> Metrics:
        return {
            "reward/groups_dropped": len(self.drawn) - len(self.groups),
            "reward/resample_rounds": self.rounds,
            "reward/resample_failed": int(self.failed),
        } | episode_metrics(self.episodes, [episode for group in self.drawn for episode in group.episodes])


class Sampler:
    """Makes batches. Sample n of a step has the seed of (run's seed, step, n), resampling rounds counted on."""

    def __init__(
        self, config: TrainConfig, rollouts: Generator, scorer: Scorer, codec: TextCodec, prompts: PromptStream
    ) -> None:
        self._config, self._player, self._scorer = config, ConversationPlayer(config, rollouts), scorer
        self._codec, self._prompts = codec, prompts

    def batch(self, step: int, times: StepTimes) -> Batch:
        """prompts_per_step groups; with dynamic sampling those with a signal (DAPO, arXiv 2503.14476, section 3.2).

        The signal is in the scores, before anything is added to the rewards.
        """
        algorithm = self._config.algorithm
        wanted = algorithm.prompts_per_step
        drawn = self._draw(step, 0, wanted, times)
        if not algorithm.dynamic_sampling:
            return Batch(groups=drawn, drawn=drawn)
        kept = _with_signal(drawn)
        rounds = 0
        while len(kept) < wanted and rounds < algorithm.max_resamples:
            more = self._draw(step, len(drawn), wanted - len(kept), times)
            drawn, kept = drawn + more, kept + _with_signal(more)
            rounds += 1
        return Batch(groups=kept or drawn[-wanted:], drawn=drawn, rounds=rounds, failed=not kept)

    def _draw(self, step: int, first_group: int, count: int, times: StepTimes) -> list[Group]:
        size = self._config.algorithm.group_size
        first = first_group * size
        problems = self._prompts.next(count)
        samples = [problem for problem in problems for _ in range(size)]
        starts = [
            Start(problem=problem, seed=sample_seed(self._config.seed, step, index))
            for index, problem in enumerate(samples, start=first)
        ]
        with self._scorer.start(samples) as scoring:
            with times.measure("rollout"):
                episodes = self._player.play(starts, self._codec, scoring.take)
            with times.measure("reward"):
                scores = scoring.finish()
            times.seconds["scoring"] += scoring.seconds
        if self._config.reward.shuffle:
            scores = shuffle_rewards(scores, sample_seed(self._config.seed, step, -1 - first))
        parts = [slice(begin, begin + size) for begin in range(0, len(samples), size)]
        return [
            Group(problem=problem, episodes=episodes[part], scores=scores[part])
            for problem, part in zip(problems, parts, strict=True)
        ]


def shape_rewards(
    batch: Batch, config: TrainConfig, reference_kl: Callable[[list[Rollout]], list[torch.Tensor]]
) -> tuple[list[torch.Tensor], Metrics]:
    """Rewards as trained on, each rollout's [T] float64; NaN at the last sampled token of one that has no reward.

    The score, less what a long response costs, is at the last sampled token; each token pays its KL to the reference.
    """
    algorithm, scores, rollouts = config.algorithm, batch.rewards.flatten(), batch.rollouts
    lengths = torch.tensor([rollout.num_sampled for rollout in rollouts])
    ends, metrics = scores, {}
    if algorithm.overlong_buffer:
        ends = ends + overlong_reward(
            lengths,
            max_tokens=config.rollout.max_tokens,
            buffer=algorithm.overlong_buffer,
            penalty=algorithm.overlong_penalty,
        )
    rewards = [_at_the_end(rollout, end) for rollout, end in zip(rollouts, ends, strict=True)]
    if algorithm.kl_coef and algorithm.kl_in is KlPlace.reward:
        kl = reference_kl(rollouts)
        rewards = [reward - algorithm.kl_coef * each for reward, each in zip(rewards, kl, strict=True)]
        metrics["train/kl_reference"] = float(torch.cat(kl).sum() / lengths.sum())
    sums = torch.stack([reward.sum() for reward in rewards])
    return rewards, metrics | {"reward/shaping_mean": float((sums - scores).nanmean())}


def _at_the_end(rollout: Rollout, reward: torch.Tensor) -> torch.Tensor:
    """[T] float64: `reward` [] at the last sampled token, 0 elsewhere."""
    rewards = torch.zeros(rollout.tokens.numel(), dtype=torch.float64)
    rewards[rollout.sampled.nonzero()[-1]] = reward
    return rewards


def sample_seed(seed: int, step: int, sample: int) -> int:
    """A request's seed, 0 <= seed < 2^63: a hash of the run's seed, the step and the sample."""
    digest = hashlib.blake2b(f"{seed}/{step}/{sample}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _with_signal(groups: list[Group]) -> list[Group]:
    return [group for group in groups if group.has_signal]
