"""Procedurally generated problems of reasoning-gym."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from rlsync.config.data import DataConfig
from rlsync.data.hashing import digest, problem_id
from rlsync.data.problem import Problem, Split
from rlsync.data.splits import split_of
from rlsync.data.template import fill
from rlsync.errors import ConfigError, DataError

CHUNK = 1000
"""Number of problems that are drawn with one reasoning-gym seed."""

BARREN_CHUNKS = 3
"""The search ends after this many chunks in a row without a new problem."""

_COMPARE_NUMBERS = ("chain_sum", "products")
"""Tasks whose scorer uses only decimal.Decimal and comparisons of texts, so it is safe outside a sandbox."""

# Exceptions that reasoning-gym's configs raise for a bad value; it has no exception types of its own.
_TASK_ERRORS = (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError)


class GymSource:
    """Generates problems of the task `data.task`.

    Raises:
        ConfigError: The task is unknown, or its arguments are wrong.
    """

    def __init__(self, config: DataConfig) -> None:
        # The import takes over a second, which runs with other sources save.
        from reasoning_gym.dataset import ProceduralDataset
        from reasoning_gym.factory import DATASETS, create_dataset

        if config.task not in DATASETS:
            near = get_close_matches(config.task, DATASETS, n=5, cutoff=0.3) or ["chain_sum", "countdown"]
            raise ConfigError(
                f"data.task={config.task!r} is not one of reasoning-gym's {len(DATASETS)} tasks, such as "
                f"{', '.join(near)}"
            )
        if reserved := {"seed", "size"} & config.task_args.keys():
            raise ConfigError(
                f"data.task_args sets {', '.join(sorted(reserved))}, which rlsync chooses itself. Leave it out; the "
                "key seed decides which problems training draws"
            )
        self._config = config
        self._create_dataset = create_dataset
        self._arguments = sorted({field.name for field in fields(DATASETS[config.task][1])} - {"seed", "size"})
        self._scorer = self._create(seed=0)
        compares_text = type(self._scorer).score_answer is ProceduralDataset.score_answer
        self._scores_harmlessly = compares_text or config.task in _COMPARE_NUMBERS

    def problems(self, split: Split, count: int, seed: int) -> list[Problem]:
        """Generate `count` distinct problems of the split, or all if there are fewer.

        A smaller count gives the beginning of the same list.

        Raises:
            DataError: The task has no problems, or too few for a warm start, or the split's percentage is 0.
        """
        if split is Split.warm_start and self._config.warm_start_percent == 0:
            raise DataError(
                "data.warm_start_percent=0 leaves no problems for the warm start. Raise it, for example to 30"
            )
        found: dict[str, Problem] = {}
        drawn = barren = 0
        while len(found) < count:
            before = len(found)
            # The seed is hashed because reasoning-gym's item i of seed s is item i - 1 of seed s + 1.
            for entry in self._draw(digest("reasoning_gym", seed, drawn) % 2**31):
                prompt = fill(self._config.template, entry["question"], entry["metadata"])
                prompt = prompt.replace(" ", "") if self._config.squeeze else prompt
                if prompt not in found and split_of(prompt, self._config) is split:
                    found[prompt] = _problem(prompt, entry)
                    if len(found) == count:
                        break
            drawn += CHUNK
            barren = barren + 1 if len(found) == before else 0
            if barren == BARREN_CHUNKS and found and split is not Split.warm_start:
                return list(found.values())  # a small task, whose problems are repeated in later epochs
            if barren == BARREN_CHUNKS:
                raise DataError(
                    f"data.task={self._config.task} has too few problems: {drawn} draws gave {len(found)} distinct "
                    f"ones of the split {split}, but {count} are needed. Ask for fewer, or widen the task with "
                    f"data.task_args ({', '.join(self._arguments)})"
                )
        return list(found.values())

    def held_out_ids(self) -> set[str]:
        """Return an empty set: the held-out problems cannot be listed, and a hash of the prompt identifies them."""
        return set()

    def scored_confined(self) -> dict[str, DataConfig]:
        """Return this source if its scorer must run in a confined process."""
        return {} if self._scores_harmlessly else {"": self._config}

    def score(self, problem: Problem, completion: str) -> float:
        """Score a completion with the task's own scorer."""
        return float(self._scorer.score_answer(completion.strip(), problem.metadata))

    def _draw(self, seed: int) -> Iterator[dict[str, Any]]:
        try:
            yield from self._create(seed)
        except _TASK_ERRORS as error:
            raise self._rejected(error) from error

    def _create(self, seed: int) -> Any:
        try:
            return self._create_dataset(self._config.task, seed=seed, size=CHUNK, **self._config.task_args)
        except _TASK_ERRORS as error:
            raise self._rejected(error) from error

    def _rejected(self, error: Exception) -> ConfigError:
        return ConfigError(
            f"data.task_args={self._config.task_args}: reasoning-gym's {self._config.task} does not accept them: "
            f"{str(error) or type(error).__name__}. Its arguments are {', '.join(self._arguments)}"
        )


def _problem(prompt: str, entry: dict[str, Any]) -> Problem:
    # Tasks with many right answers give None as the answer; their scorers read the metadata.
    answer = "" if entry["answer"] is None else str(entry["answer"])
    return Problem(id=problem_id(prompt), prompt=prompt, answer=answer, metadata=entry)
