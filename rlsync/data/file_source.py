"""Rows of a local .jsonl or .parquet file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from rlsync.data.row_source import Table
from rlsync.errors import DataError
from rlsync.paths import expanded


def read_file(path: str, option: str) -> Table:
    """Read all rows of a file.

    Args:
        path: Path of the file.
        option: The configuration field that names the path, for messages.

    Raises:
        DataError: The file does not exist, is neither .jsonl nor .parquet, or cannot be parsed.
    """
    name = f"{option}={path}"
    file = expanded(path)
    if file.suffix not in (".jsonl", ".parquet"):
        raise DataError(
            f"{name} has {f'the suffix {file.suffix}' if file.suffix else 'no suffix'}. Give a .jsonl file (one JSON "
            "object on each line) or a .parquet file"
        )
    if not file.is_file():
        raise DataError(f"{name}: no such file (looked for {file.absolute()})")
    return Table(name=name, rows=_parquet(file, name) if file.suffix == ".parquet" else _json_lines(file, name))


def _json_lines(file: Path, name: str) -> list[dict[str, Any]]:
    rows = []
    # str.splitlines would also split at characters that JSON strings may contain.
    for number, line in enumerate(file.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:  # JSONDecodeError or UnicodeDecodeError
            raise DataError(
                f"{name}, line {number} is not JSON in UTF-8: {error}. Write one JSON object on each line"
            ) from error
        if not isinstance(row, dict):
            raise DataError(f"{name}, line {number} is a {type(row).__name__}, but must be a JSON object")
        rows.append(row)
    return rows


def _parquet(file: Path, name: str) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(file).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{name} is not a readable parquet file: {error}") from error
    return rows
