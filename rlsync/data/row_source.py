"""Problems from the rows of a table, which comes from a file or from the hub."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from rlsync.config.data import AnswerParser, DataConfig
from rlsync.data.answers import PARSERS
from rlsync.data.columns import top_column, value_at
from rlsync.data.hashing import digest, problem_id
from rlsync.data.problem import Problem, Split
from rlsync.data.splits import split_of
from rlsync.data.template import fill
from rlsync.errors import DataError

logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Table:
    """Rows of a file or of a hub data set."""

    name: str
    """Configuration field and value that name the table, for messages."""
    rows: list[dict[str, Any]]


class RowSource:
    """A finite set of problems, scored by exact match.

    With a separate table of held-out problems, exactly those are held out, and problems of the first table that are
    also in it are dropped.

    Args:
        config: Configuration of the data.
        table: Rows of the problems.
        held_out: Separate table of held-out problems, or None.

    Raises:
        DataError: A table is empty, lacks a column, or has a value that is not text.
    """

    def __init__(self, config: DataConfig, table: Table, held_out: Table | None = None) -> None:
        self._name = table.name
        self._splits: dict[Split, list[Problem]] = {split: [] for split in Split}
        problems = _problems(table, config)
        if held_out is not None:
            evaluation = _problems(held_out, config)
            self._name += f" with {held_out.name}"
            self._splits[Split.held_out] = list(evaluation.values())
            problems = {prompt: problem for prompt, problem in problems.items() if prompt not in evaluation}
        for prompt, problem in problems.items():
            split = split_of(prompt, config)
            if held_out is not None and split is Split.held_out:
                split = Split.train
            self._splits[split].append(problem)

    def problems(self, split: Split, count: int, seed: int) -> list[Problem]:
        """Return at most `count` problems of the split, in an order that depends on the seed.

        Raises:
            DataError: The split has no problems.
        """
        available = self._splits[split]
        if not available:
            sizes = ", ".join(f"{name} {len(problems)}" for name, problems in self._splits.items())
            raise DataError(
                f"{self._name} has no problems in the split {split} ({sizes}). Add rows, or change "
                "data.held_out_percent and data.warm_start_percent"
            )
        return sorted(available, key=lambda problem: digest("rows", seed, problem.id))[:count]

    def held_out_ids(self) -> set[str]:
        """Return the ids of the held-out problems."""
        return {problem.id for problem in self._splits[Split.held_out]}

    def scored_confined(self) -> dict[str, DataConfig]:
        """Return an empty dictionary: exact match needs no confined process."""
        return {}

    def score(self, problem: Problem, completion: str) -> float:
        """Return 1 if the completion equals the answer, surrounding blanks aside, else 0."""
        return float(completion.strip() == problem.answer.strip())


def _problems(table: Table, config: DataConfig) -> dict[str, Problem]:
    """Return the table's problems by prompt; of rows with equal prompts only the first is used."""
    if not table.rows:
        raise DataError(f"{table.name} has no rows")
    columns = list(dict.fromkeys(column for row in table.rows for column in row))
    for field, column in (("prompt_column", config.prompt_column), ("answer_column", config.answer_column)):
        if top_column(column, columns) not in columns:
            near = get_close_matches(column, columns, n=1)
            raise DataError(
                f"data.{field}={column!r} is not a column of {table.name}; it has {', '.join(columns)}."
                + (f" Did you mean data.{field}={near[0]}?" if near else f" Set data.{field} to one of them")
            )
    problems: dict[str, Problem] = {}
    for number, row in enumerate(table.rows, start=1):
        where = f"row {number} of {table.name}"
        question = _text(row, config.prompt_column, where)
        prompt = _encodable(fill(config.template, question, row), "prompt", where)
        answer = _encodable(_answer(row, config, where), "answer", where)
        problem = Problem(
            id=problem_id(prompt),
            prompt=prompt,
            answer=answer,
            metadata=row,
            origin=f"{where}, column {config.answer_column!r}",
            structured=isinstance(value_at(row, config.answer_column), list | dict),
        )
        problems.setdefault(prompt, problem)
    if repeated := len(table.rows) - len(problems):
        message = "%s: %d of %d rows have the prompt of an earlier row and are left out"
        logger.warning(message, table.name, repeated, len(table.rows))
    return problems


def _text(row: dict[str, Any], column: str, where: str) -> str:
    value = value_at(row, column)
    if not isinstance(value, str) or not value.strip():
        raise DataError(
            f"{where}: column {column!r} is {_short(value)} ({type(value).__name__}), but must be text that is not "
            "empty. Correct or remove the row, or name another column"
        )
    return value


def _encodable(text: str, what: str, where: str) -> str:
    """Return the text; raise DataError for half of a surrogate pair, which JSON may have but UTF-8 cannot encode."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: the {what} {_short(text)} is not valid Unicode: {error}. Correct or remove the row"
        ) from error
    return text


def _answer(row: dict[str, Any], config: DataConfig, where: str) -> str:
    value = value_at(row, config.answer_column)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        return _number(value, config.answer_column, where)
    if isinstance(value, list | dict) and value and config.answer_parser is AnswerParser.none:
        return _json(value, config.answer_column, where)
    text = _text(row, config.answer_column, where)
    try:
        return PARSERS[config.answer_parser](text)
    except ValueError as error:
        raise DataError(
            f"{where}: data.answer_parser={config.answer_parser} finds no answer in column {config.answer_column!r}, "
            f"{_short(text)}: {error}. Correct or remove the row, or use another parser"
        ) from error


def _number(value: float, column: str, where: str) -> str:
    """Return a number as it is usually written: columns of integers often hold floats, such as 7.0 for 7."""
    if not math.isfinite(value):
        raise DataError(
            f"{where}: column {column!r} is {value}, but must be a finite number. Correct or remove the row"
        )
    return str(int(value) if value.is_integer() else value)


def _json(value: Any, column: str, where: str) -> str:
    """Return a list or an object, as tests of programs often are, as JSON text."""
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{where}: column {column!r} cannot be written as JSON: {error}. Correct or remove the row"
        ) from error


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "..."
