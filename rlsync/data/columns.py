"""Look up values of a row by a column's name, or by a path into a nested column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def value_at(row: Mapping[str, Any], column: str) -> Any:
    """Return the value of a column, or the value at a path such as `reward_model.ground_truth` or `prompt.0.content`.

    A column with exactly this name takes precedence. The value is None if the path does not exist.
    """
    if column in row:
        return row[column]
    value: Any = row
    for step in column.split("."):
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, Sequence) and not isinstance(value, str) and step.isdecimal():
            value = value[int(step)] if int(step) < len(value) else None
        else:
            return None
    return value


def top_column(column: str, columns: list[str]) -> str:
    """Return the column of the table that a path begins with."""
    return column if column in columns else column.partition(".")[0]
