"""One conversation while it grows: its token ids, and the texts that people and rewards read."""

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
    """Seed of all turns, 0 <= seed < 2^63."""
    greedy: bool = False

    def request(self, prompt: list[int], max_tokens: int, codec: TextCodec) -> RolloutRequest:
        """Make the request for the next turn.

        Args:
            prompt: All token ids so far.
            max_tokens: Most tokens to sample.
            codec: Gives the stop ids.
        """
        return RolloutRequest(
            prompt=prompt, seed=self.seed, max_tokens=max_tokens, stop_ids=codec.stop_ids, greedy=self.greedy
        )


@dataclass(slots=True, kw_only=True)
class Conversation:
    """The state of one conversation."""

    start: Start
    environment: Environment | None = None
    """None before the environment is made, or if making it failed."""
    ids: list[int] = field(default_factory=list)
    """All token ids so far, which the next turn continues."""
    answers: list[Rollout] = field(default_factory=list)
    """Rollout of each turn of the model; its prompt is everything before the turn."""
    turns: list[str] = field(default_factory=list)
    """Texts of the model's turns and the environment's messages, alternating."""
    tool_calls: int = 0
    finish_reason: FinishReason | None = None
    """None until the conversation has ended."""
    error: str | None = None

    @property
    def num_sampled(self) -> int:
        """Number of tokens that the model has sampled."""
        return sum(answer.num_sampled for answer in self.answers)

    def add_turn(self, turn: Rollout, codec: TextCodec) -> None:
        """Add a turn of the model, which continues `ids`."""
        self.answers.append(turn)
        self.ids = self.ids + turn.response
        self.turns.append(codec.decode(turn.response, self.start.problem))
        if self.error is not None:
            self.finish_reason = FinishReason.error
        elif turn.finish_reason is FinishReason.length:
            self.finish_reason = FinishReason.length

    def step(self) -> Observation | None:
        """Return the environment's answer to the model's last turn, or None if the conversation is over.

        An exception of the environment is not caught.

        Raises:
            TypeError: The environment returned something that is not an Observation or None.
            UnicodeEncodeError: The text of the answer is not valid Unicode.
        """
        assert self.environment is not None
        answer = self.environment.step(self.turns[-1])
        if answer is None:
            return None
        if not (isinstance(answer, Observation) and isinstance(answer.text, str)):
            raise TypeError(f"it returned {answer!r}, but must return an Observation with a text, or None")
        if not isinstance(answer.tool_calls, Integral):
            raise TypeError(f"it returned {answer!r}, whose tool_calls must be an integer (0 if no tool was called)")
        check_text(answer.text)
        return answer

    def fail(self, method: str, error: BaseException) -> None:
        """Record and log an exception that a method of the environment raised."""
        problem = self.start.problem
        message = redacted(f"{type(error).__name__}: {error}")
        self.error = f"{message} ({method} after {self.turns!r:.300}, problem {problem.id})"
        logger.warning("the environment failed, so this conversation ends with an error: %s", self.error)

    def episode(self, codec: TextCodec, scored: Scored) -> Episode:
        """Return the episode of the finished conversation. `scored` says which text the reward functions read."""
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
    """Raise UnicodeEncodeError for half of a surrogate pair, which no tokenizer accepts."""
    text.encode()


def _joined(answers: list[Rollout]) -> Rollout:
    """Return the last rollout, which has all tokens, with the log-probs and versions of earlier turns filled in."""
    last = answers[-1]
    sampled, logprobs, versions = last.sampled.clone(), last.logprobs.clone(), last.weight_version.clone()
    digests = None if last.row_digests is None else last.row_digests.clone()
    for answer in answers[:-1]:
        own = slice(answer.prompt_length, answer.tokens.numel())
        sampled[own], logprobs[own], versions[own] = True, answer.logprobs[own], answer.weight_version[own]
        if digests is not None and answer.row_digests is not None:
            digests[own] = answer.row_digests[own]
    return replace(last, sampled=sampled, logprobs=logprobs, weight_version=versions, row_digests=digests)
