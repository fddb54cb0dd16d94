"""Plays conversations: the model's turns from the rollout engines, the environment's messages between them.

All conversations advance together. In a round the next turns of those that go on are one batch of requests whose
prompts are everything so far, as token ids; vLLM's prefix cache knows most of it. A request's seed is the
conversation's in every turn: a token is drawn from its log-probs, the seed and its absolute position, which no two of
them share, so the trainer draws the whole sequence again as if it had been sampled at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol, TypeVar

from rlsync.config.environment import EnvironmentConfig
from rlsync.config.rollout import RolloutConfig
from rlsync.data.problem import Problem
from rlsync.data.text import TextCodec
from rlsync.environments.base import Environment, Observation
from rlsync.environments.build import environment_maker
from rlsync.environments.conversation import Conversation, Start, check_text
from rlsync.errors import EnvironmentFailedError
from rlsync.samples import Episode, FinishReason, Rollout, RolloutRequest
from rlsync.user_calls import call_each

T = TypeVar("T")


OnFinished = Callable[[int, Episode], None]
"""A callback that gets the index of a start and its finished episode, while others are still played."""


class Generator(Protocol):
    def generate(self, requests: list[RolloutRequest]) -> Iterable[tuple[int, Rollout]]:
        """Each request's index and rollout, as they are finished."""


def _ignore(index: int, episode: Episode) -> None:
    """Default callback: do nothing."""


class ConversationPlayer:
    """Plays conversations with the environment that the config names; without one, single turns.

    Raises:
        ConfigError: the environment cannot be loaded.
    """

    def __init__(self, environment: EnvironmentConfig, limits: RolloutConfig, generator: Generator) -> None:
        self._environment, self._limits = environment, limits
        self._generator = generator
        self._make = environment_maker(environment)

    def play(self, starts: list[Start], codec: TextCodec, on_finished: OnFinished = _ignore) -> list[Episode]:
        """One episode per start, in order.

        Args:
            on_finished: told of single turns as the engines finish them, of conversations after the round they end in.

        Raises:
            EnvironmentFailedError: the environment failed in all of them.
        """
        if self._make is None:
            return self._single_turns(starts, codec, on_finished)
        talks = [Conversation(start=start) for start in starts]
        self._open(talks, codec, self._make)
        episodes: dict[int, Episode] = {}
        going = list(enumerate(talks))
        while going:
            self._round([talk for _, talk in going], codec)
            for index, talk in going:
                if talk.finish_reason is not None:
                    episodes[index] = talk.episode(codec, self._environment.scored)
                    on_finished(index, episodes[index])
            going = [(index, talk) for index, talk in going if talk.finish_reason is None]
        errors = [talk.error for talk in talks if talk.error is not None]
        if errors and len(errors) == len(talks):
            raise EnvironmentFailedError(
                f"the environment failed in all {len(talks)} conversations; the first: {errors[0]}. Call its reset and "
                "step on this problem by themselves to see the traceback; environment.timeout_s bounds each"
            )
        return [episodes[index] for index in range(len(talks))]

    def _single_turns(self, starts: list[Start], codec: TextCodec, on_finished: OnFinished) -> list[Episode]:
        limit = self._limits.max_tokens
        episodes: dict[int, Episode] = {}
        requests = [s.request(codec.encode(s.problem), limit, codec) for s in starts]
        for index, rollout in self._generator.generate(requests):
            text = codec.decode(rollout.response, starts[index].problem)
            episodes[index] = Episode(rollout=rollout, turns=[text], scored=text)
            on_finished(index, episodes[index])
        return [episodes[index] for index in range(len(starts))]

    def _open(self, talks: list[Conversation], codec: TextCodec, make: Callable[[], Environment]) -> None:
        """Give each an environment and its opening.

        Where that fails the model answers the problem's own prompt once: every rollout needs a token of the model.
        """
        openings = self._bounded([partial(_reset, make, talk.start.problem) for talk in talks])
        for talk, opening in zip(talks, openings, strict=True):
            problem = talk.start.problem
            talk.ids = codec.encode(problem)
            if isinstance(opening, BaseException):
                talk.fail("reset", opening)
                continue
            talk.environment, prompt = opening
            ids = codec.encode(replace(problem, prompt=prompt))
            if len(ids) < self._limits.max_model_len:
                talk.ids = ids
            else:
                limit = f"rollout.max_model_len={self._limits.max_model_len}"
                talk.fail("reset", ValueError(f"its {len(ids)} tokens leave no room for a response within {limit}"))

    def _round(self, going: list[Conversation], codec: TextCodec) -> None:
        """A turn of the model in each, and the environment's answers."""
        requests = [talk.start.request(talk.ids, self._room(talk), codec) for talk in going]
        for index, turn in self._generator.generate(requests):
            going[index].add_turn(turn, codec)
        asked = [talk for talk in going if talk.finish_reason is None]
        answers = self._bounded([talk.step for talk in asked])
        for talk, answer in zip(asked, answers, strict=True):
            self._take(talk, answer, codec)

    def _take(self, talk: Conversation, answer: Observation | BaseException | None, codec: TextCodec) -> None:
        """Put the environment's answer into the conversation, or end it."""
        if isinstance(answer, BaseException):
            talk.fail("step", answer)
            talk.finish_reason = FinishReason.error
            return
        if answer is None:
            talk.finish_reason = FinishReason.stop
            return
        talk.tool_calls += answer.tool_calls
        talk.ids = talk.ids + codec.encode_message(answer.text, talk.start.problem)
        # A message that no turn follows is left out: nobody would read it.
        if (len(talk.turns) + 1) // 2 == self._environment.max_turns:
            talk.finish_reason = FinishReason.turns
        elif self._room(talk) < 1:
            talk.finish_reason = FinishReason.length
        else:
            talk.turns.append(answer.text)

    def _room(self, talk: Conversation) -> int:
        """Tokens that the model may still sample: of its own rollout.max_tokens, of all rollout.max_model_len."""
        return min(self._limits.max_tokens - talk.num_sampled, self._limits.max_model_len - len(talk.ids))

    def _bounded(self, calls: Sequence[Callable[[], T]]) -> list[T | BaseException]:
        environment = self._environment
        return call_each(
            calls, timeout_s=environment.timeout_s, parallel=environment.parallel, field="environment.timeout_s"
        )


def _reset(make: Callable[[], Environment], problem: Problem) -> tuple[Environment, str]:
    environment = make()
    opening = environment.reset(problem)
    if not isinstance(opening, str):
        raise TypeError(f"it returned {opening!r}, want a text")
    check_text(opening)
    return environment, opening
