"""The table of samples that wandb shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields

from rlsync.config.telemetry import TelemetryConfig
from rlsync.redact import redacted
from rlsync.samples import Rollout, Sample
from rlsync.telemetry.json_text import to_json

_LONGEST_TEXT = 4000
"""Most characters of a text in the table."""
_MOST_TOKENS = 512
"""Most tokens whose log-probs are shown."""


@dataclass(slots=True, frozen=True, kw_only=True)
class SampleRow:
    """One row; its fields are the table's columns."""

    step: int
    problem: str
    prompt: str
    completion: str
    answer: str
    reward: float | None
    reward_parts: str
    """JSON object with the score of each function of a weighted sum; empty with one function."""
    advantage: float | None
    """The mean over the sampled tokens; without a critic they all have the same."""
    tokens: int
    finish_reason: str
    logprobs: str
    """JSON list of [token, log-prob] for each sampled token, with <ID> for a special token; empty in most rows."""

    def cells(self) -> list[str | float | int | None]:
        """Return the cells in the order of `COLUMNS`."""
        return list(asdict(self).values())


COLUMNS = [field.name for field in fields(SampleRow)]


def is_due(config: TelemetryConfig, step: int, last: int) -> bool:
    """Whether a step has a table; `last` is the run's last step."""
    every = config.samples_every
    return every > 0 and (step in (1, last) or step % every == 0)


def sample_rows(
    samples: list[Sample], config: TelemetryConfig, *, step: int, text_of: Callable[[list[int]], str]
) -> list[SampleRow]:
    """Return the rows of a step's table.

    Args:
        samples: The samples of the step, with advantages.
        config: How many rows to show.
        step: The step.
        text_of: Returns the text of token ids.
    """
    count = min(config.samples, len(samples))
    chosen = [samples[index * len(samples) // count] for index in range(count)]
    return [
        SampleRow(
            step=step,
            problem=sample.problem.id,
            prompt=_cut(sample.problem.prompt),
            completion=_cut(_completion(sample)),
            answer=_cut(str(sample.problem.answer)),
            reward=sample.score.reward,
            reward_parts=to_json(sample.score.parts) if sample.score.parts else "",
            advantage=_advantage(sample),
            tokens=sample.rollout.num_sampled,
            finish_reason=sample.rollout.finish_reason.value,
            logprobs=_logprobs(sample.rollout, text_of) if index < config.samples_logprobs else "",
        )
        for index, sample in enumerate(chosen)
    ]


def _completion(sample: Sample) -> str:
    """The model's turns and the environment's messages; an error of the reward follows them."""
    text = "\n".join(sample.episode.turns)
    return text if sample.score.error is None else f"{text}\n[no reward: {redacted(sample.score.error)}]"


def _advantage(sample: Sample) -> float | None:
    if sample.advantage is None:
        return None
    return float(sample.advantage[sample.rollout.sampled].mean())


def _logprobs(rollout: Rollout, text_of: Callable[[list[int]], str]) -> str:
    ids, values = rollout.response[:_MOST_TOKENS], rollout.logprobs[rollout.sampled][:_MOST_TOKENS].tolist()
    pairs = [[text_of([token]) or f"<{token}>", round(value, 6)] for token, value in zip(ids, values, strict=True)]
    more = rollout.num_sampled - len(pairs)
    return json.dumps([*pairs, f"{more} more"] if more else pairs, ensure_ascii=False)


def _cut(text: str) -> str:
    """Shorten a very long text in its middle."""
    if len(text) <= _LONGEST_TEXT:
        return text
    half = _LONGEST_TEXT // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters left out ...]\n{text[-half:]}"
