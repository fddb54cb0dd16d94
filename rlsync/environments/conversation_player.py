"""Play conversations between the rollout engines and environments.

All conversations advance together. In each round, the next turns of all unfinished conversations are one batch of
requests. The prompt of a request is everything so far, as token ids; most of it is in vLLM's prefix cache. All turns of
a conversation have the same seed. A token is drawn from its log-probs, the seed and its absolute position, and no two
tokens have the same position, so the trainer can repeat the draws as if the whole sequence had been sampled at once.
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
"""A callback that gets the index of a start and its finished episode, while other conversations continue."""


class Generator(Protocol):
    """Samples responses, as the rollout engines do."""

    def generate(self, requests: list[RolloutRequest]) -> Iterable[tuple[int, Rollout]]:
        """Yield the index and the rollout of each request when it is finished."""


def _ignore(index: int, episode: Episode) -> None:
    """Default callback: do nothing."""


class ConversationPlayer:
    """Plays conversations with the configured environment, or single turns if there is none.

    Args:
        environment: Configuration of the environment.
        limits: Configuration of the rollouts, with the limits of lengths.
        generator: Samples the model's turns.

    Raises:
        ConfigError: The environment cannot be loaded.
    """

    def __init__(self, environment: EnvironmentConfig, limits: RolloutConfig, generator: Generator) -> None:
        self._environment, self._limits = environment, limits
        self._generator = generator
        self._make = environment_maker(environment)

    def play(self, starts: list[Start], codec: TextCodec, on_finished: OnFinished = _ignore) -> list[Episode]:
        """Play conversations, and return their episodes in the order of `starts`.

        Args:
            starts: Problems and seeds of the conversations.
            codec: Converts between texts and token ids.
            on_finished: Called with each finished episode. A single turn is reported when its engine finishes it, and
                a conversation after the round in which it ends.

        Raises:
            EnvironmentFailedError: The environment failed in all conversations.
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
                f"the environment failed in all {len(talks)} conversations; the first error: {errors[0]}. To see the "
                "traceback, call its reset and step directly with this problem. A call may take environment.timeout_s"
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
        """Make the environments, and begin each conversation with the prompt that `reset` returns.

        If that fails, the model answers the problem's own prompt once, because every rollout needs a sampled token.
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
        """Sample a turn in each conversation, and get the environments' answers."""
        requests = [talk.start.request(talk.ids, self._room(talk), codec) for talk in going]
        for index, turn in self._generator.generate(requests):
            going[index].add_turn(turn, codec)
        asked = [talk for talk in going if talk.finish_reason is None]
        answers = self._bounded([talk.step for talk in asked])
        for talk, answer in zip(asked, answers, strict=True):
            self._take(talk, answer, codec)

    def _take(self, talk: Conversation, answer: Observation | BaseException | None, codec: TextCodec) -> None:
        """Add the environment's answer to the conversation, or end the conversation."""
        if isinstance(answer, BaseException):
            talk.fail("step", answer)
            talk.finish_reason = FinishReason.error
            return
        if answer is None:
            talk.finish_reason = FinishReason.stop
            return
        talk.tool_calls += answer.tool_calls
        talk.ids = talk.ids + codec.encode_message(answer.text, talk.start.problem)
        # A message that no turn follows is left out of the turns, because the model does not read it.
        if (len(talk.turns) + 1) // 2 == self._environment.max_turns:
            talk.finish_reason = FinishReason.turns
        elif self._room(talk) < 1:
            talk.finish_reason = FinishReason.length
        else:
            talk.turns.append(answer.text)

    def _room(self, talk: Conversation) -> int:
        """Return the number of tokens that the model may still sample.

        rollout.max_tokens limits the sampled tokens, and rollout.max_model_len all tokens of the conversation.
        """
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
        raise TypeError(f"it returned {opening!r}, but must return a text")
    check_text(opening)
    return environment, opening
