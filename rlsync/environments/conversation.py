"""One conversation as it grows: token ids alone, and beside them the texts that people and rewards read."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from numbers import Integral

from rlsync.config.environment import Scored
from rlsync.data.problem import Problem
from rlsync.data.text import TextCodec
from rlsync.environments.base import Environment, Observation
from rlsync.redact import redacted
from rlsync.samples import Episode, FinishReason, Rollout, RolloutRequest

logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Start:
    """A conversation to play."""

    problem: Problem
    seed: int
    """0 <= seed < 2^63, of all its turns."""
    greedy: bool = False

    def request(self, prompt: list[int], max_tokens: int, codec: TextCodec) -> RolloutRequest:
        return RolloutRequest(
            prompt=prompt, seed=self.seed, max_tokens=max_tokens, stop_ids=codec.stop_ids, greedy=self.greedy
        )


@dataclass(slots=True, kw_only=True)
class Conversation:
    start: Start
    environment: Environment | None = None
    """None before it is made, and where that failed."""
    ids: list[int] = field(default_factory=list)
    """All tokens so far, which the next turn continues."""
    answers: list[Rollout] = field(default_factory=list)
    """What the engine sampled in each turn; the prompt of each is everything before it."""
    turns: list[str] = field(default_factory=list)
    """The model's and the environment's in turn."""
    tool_calls: int = 0
    finish_reason: FinishReason | None = None
    """None while it goes on."""
    error: str | None = None

    @property
    def num_sampled(self) -> int:
        return sum(answer.num_sampled for answer in self.answers)

    def add_turn(self, turn: Rollout, codec: TextCodec) -> None:
        """The model's answer to `ids`."""
        self.answers.append(turn)
        self.ids = self.ids + turn.response
        self.turns.append(codec.decode(turn.response, self.start.problem))
        if self.error is not None:
            self.finish_reason = FinishReason.error
        elif turn.finish_reason is FinishReason.length:
            self.finish_reason = FinishReason.length

    def step(self) -> Observation | None:
        """The environment's answer to the last turn.

        Raises:
            TypeError: it is of another type; or whatever the environment raises.
            UnicodeEncodeError: as check_text.
        """
        assert self.environment is not None
        answer = self.environment.step(self.turns[-1])
        if answer is None:
            return None
        if not (isinstance(answer, Observation) and isinstance(answer.text, str)):
            raise TypeError(f"it returned {answer!r}, want an Observation with a text, or None")
        if not isinstance(answer.tool_calls, Integral):
            raise TypeError(f"it returned {answer!r}, want a number of tool_calls, 0 where no tool speaks")
        check_text(answer.text)
        return answer

    def fail(self, method: str, error: BaseException) -> None:
        problem = self.start.problem
        told = redacted(f"{type(error).__name__}: {error}")
        self.error = f"{told} ({method} after {self.turns!r:.300}, problem {problem.id})"
        logger.warning("the environment failed, which costs this conversation: %s", self.error)

    def episode(self, codec: TextCodec, scored: Scored) -> Episode:
        """What is left of it when it has ended."""
        assert self.finish_reason is not None
        rollout = replace(_joined(self.answers), finish_reason=self.finish_reason)
        after_prompt, last = rollout.tokens[rollout.prompt_length :].tolist(), scored is Scored.last_turn
        return Episode(
            rollout=rollout,
            turns=self.turns,
            scored=self.turns[-1] if last else codec.decode(after_prompt, self.start.problem),
            tool_calls=self.tool_calls,
            error=self.error,
        )


def check_text(text: str) -> None:
    """Raises UnicodeEncodeError for half a surrogate pair, which no tokenizer reads."""
    text.encode()


def _joined(answers: list[Rollout]) -> Rollout:
    """The last answer, whose tokens are those of the whole conversation, with what is known of the earlier ones'."""
    last = answers[-1]
    sampled, logprobs, versions = last.sampled.clone(), last.logprobs.clone(), last.weight_version.clone()
    for answer in answers[:-1]:
        own = slice(answer.prompt_length, answer.tokens.numel())
        sampled[own], logprobs[own], versions[own] = True, answer.logprobs[own], answer.weight_version[own]
    return replace(last, sampled=sampled, logprobs=logprobs, weight_version=versions)
