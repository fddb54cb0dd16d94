"""Collect a step's scored samples: prompts -> rollouts -> rewards, repeated as dynamic sampling requires."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch

from rlsync.algorithms.shaping import overlong_reward
from rlsync.config.algorithm import KlPlace
from rlsync.config.run import TrainConfig
from rlsync.controller.metrics import episode_metrics
from rlsync.data.prompts import PromptStream
from rlsync.data.text import TextCodec
from rlsync.environments.conversation import Start
from rlsync.environments.conversation_player import ConversationPlayer, Generator
from rlsync.rewards.scorer import Scorer, shuffle_rewards
from rlsync.samples import Rollout, Sample
from rlsync.telemetry.metrics import Metrics, StepTimes


@dataclass(slots=True, kw_only=True)
class Group:
    """The responses to one prompt."""

    samples: list[Sample]

    @property
    def has_signal(self) -> bool:
        """Whether the group's rewards differ. Without a signal, group-relative advantages are 0."""
        return len({sample.score.reward for sample in self.samples if sample.score.reward is not None}) > 1


@dataclass(slots=True, kw_only=True)
class Batch:
    """The groups of a step."""

    groups: list[Group]
    """The groups that the step trains on."""
    drawn: list[Group]
    """All groups that were sampled for the step, including `groups`."""
    rounds: int = 0
    """Number of rounds of resampling after the first one."""
    failed: bool = False
    """Whether no group had a signal. Then `groups` holds the last groups, although they have no signal."""

    @property
    def samples(self) -> list[Sample]:
        """The samples that the step trains on, group after group."""
        return [sample for group in self.groups for sample in group.samples]

    @property
    def samples_drawn(self) -> list[Sample]:
        """All samples, including those of dropped groups."""
        return [sample for group in self.drawn for sample in group.samples]

    @property
    def tokens_drawn(self) -> int:
        """Number of sampled tokens, including those of dropped groups."""
        return sum(sample.rollout.num_sampled for sample in self.samples_drawn)

    @property
    def rewards(self) -> torch.Tensor:
        """Scores of the groups, [P, G] float64; NaN if a sample has none."""
        rows = [[sample.score.reward_or_nan for sample in group.samples] for group in self.groups]
        return torch.tensor(rows, dtype=torch.float64)

    def metrics(self) -> Metrics:
        """Return metrics of dynamic sampling and of the episodes."""
        return {
            "reward/groups_dropped": len(self.drawn) - len(self.groups),
            "reward/resample_rounds": self.rounds,
            "reward/resample_failed": int(self.failed),
        } | episode_metrics(self.samples, self.samples_drawn)


class Sampler:
    """Makes the batch of each step.

    The seed of sample n of a step depends on the run's seed, the step and n. The count n continues over rounds of
    resampling.
    """

    def __init__(
        self, config: TrainConfig, rollouts: Generator, scorer: Scorer, codec: TextCodec, prompts: PromptStream
    ) -> None:
        self._config, self._player, self._scorer = (
            config,
            ConversationPlayer(config.environment, config.rollout, rollouts),
            scorer,
        )
        self._codec, self._prompts = codec, prompts

    def batch(self, step: int, times: StepTimes) -> Batch:
        """Sample and score algorithm.prompts_per_step groups.

        With dynamic sampling (DAPO, arXiv 2503.14476, section 3.2) only groups with a signal are kept, and further
        prompts are drawn in their place. The signal is looked for in the scores, before rewards are shaped.
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
        asked = [problem for problem in problems for _ in range(size)]
        starts = [
            Start(problem=problem, seed=sample_seed(self._config.seed, step, index))
            for index, problem in enumerate(asked, start=first)
        ]
        with self._scorer.start(asked) as scoring:
            with times.measure("rollout"):
                episodes = self._player.play(starts, self._codec, scoring.take)
            with times.measure("reward"):
                scores = scoring.finish()
            times.seconds["scoring"] += scoring.seconds
        if self._config.reward.shuffle:
            scores = shuffle_rewards(scores, sample_seed(self._config.seed, step, -1 - first))
        samples = [
            Sample(problem=problem, episode=episode, score=score)
            for problem, episode, score in zip(asked, episodes, scores, strict=True)
        ]
        return [Group(samples=samples[begin : begin + size]) for begin in range(0, len(samples), size)]


def shape_rewards(
    samples: list[Sample], config: TrainConfig, reference_kl: Callable[[list[Rollout]], list[torch.Tensor]]
) -> Metrics:
    """Set each sample's `reward`, and return metrics of the shaping.

    The last sampled token gets the score minus the overlong penalty. With a KL in the reward, each token's KL to the
    reference, times algorithm.kl_coef, is subtracted from its reward.

    Args:
        samples: Scored samples.
        config: The run's configuration.
        reference_kl: Returns each rollout's KL to the reference, [T]; called only with a KL in the reward.
    """
    algorithm, rollouts = config.algorithm, [sample.rollout for sample in samples]
    scores = torch.tensor([sample.score.reward_or_nan for sample in samples], dtype=torch.float64)
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
    for sample, reward in zip(samples, rewards, strict=True):
        sample.reward = reward
    sums = torch.stack([reward.sum() for reward in rewards])
    return metrics | {"reward/shaping_mean": float((sums - scores).nanmean())}


def _at_the_end(rollout: Rollout, reward: torch.Tensor) -> torch.Tensor:
    """Return [T] float64 with the scalar `reward` at the last sampled token and 0 elsewhere."""
    rewards = torch.zeros(rollout.tokens.numel(), dtype=torch.float64)
    rewards[rollout.sampled.nonzero()[-1]] = reward
    return rewards


def sample_seed(seed: int, step: int, sample: int) -> int:
    """Return a request's seed, 0 <= seed < 2^63: a hash of the run's seed, the step and the sample's number."""
    digest = hashlib.blake2b(f"{seed}/{step}/{sample}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _with_signal(groups: list[Group]) -> list[Group]:
    return [group for group in groups if group.has_signal]
