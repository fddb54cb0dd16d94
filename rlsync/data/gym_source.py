"""Procedural problems of reasoning-gym."""

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
"""Problems drawn from one reasoning-gym seed."""

BARREN_CHUNKS = 3
"""Give up after so many chunks in a row without a problem not seen before."""

_COMPARE_NUMBERS = ("chain_sum", "products")
"""Tasks whose scorer is no more than decimal.Decimal and a comparison of texts."""

# What reasoning-gym's configs raise on a bad value: they assert and compare, without errors of their own.
_TASK_ERRORS = (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError)


class GymSource:
    """Problems made on the spot by the task `data.task`.

    Raises:
        ConfigError: the task is unknown, or its arguments are wrong.
    """

    def __init__(self, config: DataConfig) -> None:
        # Over a second to import, which runs on other sources need not pay.
        from reasoning_gym.dataset import ProceduralDataset
        from reasoning_gym.factory import DATASETS, create_dataset

        if config.task not in DATASETS:
            near = get_close_matches(config.task, DATASETS, n=5, cutoff=0.3) or ["chain_sum", "countdown"]
            raise ConfigError(
                f"data.task={config.task!r} is none of reasoning-gym's {len(DATASETS)} tasks, such as {', '.join(near)}"
            )
        if reserved := {"seed", "size"} & config.task_args.keys():
            raise ConfigError(
                f"data.task_args sets {', '.join(sorted(reserved))}, which rlsync chooses itself. Leave it out; "
                "run.seed decides which problems training draws"
            )
        self._config = config
        self._create_dataset = create_dataset
        self._arguments = sorted({field.name for field in fields(DATASETS[config.task][1])} - {"seed", "size"})
        self._scorer = self._create(seed=0)
        compares_text = type(self._scorer).score_answer is ProceduralDataset.score_answer
        self._scores_harmlessly = compares_text or config.task in _COMPARE_NUMBERS

    def problems(self, split: Split, count: int, seed: int) -> list[Problem]:
        """`count` distinct problems of the split, or all there are; a smaller count gives the beginning of the list.

        Raises:
            DataError: the task has none, or too few for a warm start, or the config leaves none to the split.
        """
        if split is Split.warm_start and self._config.warm_start_percent == 0:
            raise DataError("data.warm_start_percent=0 leaves no problems to the warm start; raise it, e.g. to 30")
        found: dict[str, Problem] = {}
        drawn = barren = 0
        while len(found) < count:
            before = len(found)
            # Hashed, as reasoning-gym's item i of seed s is item i - 1 of seed s + 1.
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
                return list(found.values())  # a small task: the stream starts over when it has seen them all
            if barren == BARREN_CHUNKS:
                raise DataError(
                    f"data.task={self._config.task} has too few problems: {len(found)} distinct ones of the split "
                    f"{split} in {drawn} draws, wanted {count}. Ask for fewer, or widen the task with data.task_args "
                    f"({', '.join(self._arguments)})"
                )
        return list(found.values())

    def held_out_ids(self) -> set[str]:
        return set()  # without end; a hash of the prompt tells

    def scored_confined(self) -> dict[str, DataConfig]:
        return {} if self._scores_harmlessly else {"": self._config}

    def score(self, problem: Problem, completion: str) -> float:
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
            f"data.task_args={self._config.task_args}: reasoning-gym's {self._config.task} does not take them: "
            f"{str(error) or type(error).__name__}. It has {', '.join(self._arguments)}"
        )


def _problem(prompt: str, entry: dict[str, Any]) -> Problem:
    # Tasks with many right answers give None for theirs; their scorers read the metadata.
    answer = "" if entry["answer"] is None else str(entry["answer"])
    return Problem(id=problem_id(prompt), prompt=prompt, answer=answer, metadata=entry)
