"""Writes the report of some runs as one HTML file of bounded size."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rlsync.errors import ConfigError
from rlsync.report.chunks import encode
from rlsync.report.core import Core, names, run_view
from rlsync.report.packing import Packed, pack_rollouts
from rlsync.report.page import Page, render
from rlsync.report.run_reader import RunReader

REPORT = "report.html"
"""Name of a report in a run folder."""
LARGEST_FILE = 19_500_000
"""Bytes of a report. What does not fit is left out, and the page says so."""
_METRICS_SIZE, _APP_SIZE = 4_000_000, 400_000
"""Largest number of bytes of facts and metrics of all runs, and a number above that of scripts and styles."""
_MOST_ROLLOUTS, _MOST_STEPS, _FEWEST_STEPS = 60_000, 20_000, 50
"""Number of listed rollouts of all runs, and of steps of each run."""
MOST_RUNS = 16
"""Number of runs in a report."""


@dataclass(slots=True)
class Contents:
    """What a report holds of a run."""

    packed: Packed
    tokenizer: bool


def write_report(readers: list[RunReader], out: Path, *, largest: int = LARGEST_FILE) -> int:
    """Write the report, and return its size in bytes. The file appears under its name only when it is complete.

    Args:
        readers: The runs.
        out: The file.
        largest: Largest size in bytes.

    Raises:
        ConfigError: A run cannot be read, or the file cannot be written.
    """
    for reader in readers:
        reader.update()
    metrics = len(core_chunk(readers, [Contents(Packed(), tokenizer=False) for _ in readers]))
    share = (largest - metrics - _APP_SIZE) // len(readers)
    contents = [_contents(reader, share, _MOST_ROLLOUTS // len(readers)) for reader in readers]
    page = Page(title=title(readers), core=core_chunk(readers, contents))
    for number, content in enumerate(contents):
        page.others |= {f"rows-{number}-{part}": chunk for part, chunk in enumerate(content.packed.rows)}
        page.others |= {f"places-{number}": content.packed.places} if content.packed.places else {}
        page.others |= {f"detail-{number}-{part}": chunk for part, chunk in enumerate(content.packed.details)}
    return _write(out, render(page))


def core_chunk(readers: list[RunReader], contents: list[Contents], *, live: bool = False) -> str:
    """Return the chunk of the first view, with fewer steps of each run if it would be too large."""
    steps = _MOST_STEPS
    while True:
        views = [
            run_view(reader, name, content.packed, tokenizer=content.tokenizer, most_steps=steps)
            for reader, name, content in zip(readers, names(readers), contents, strict=True)
        ]
        chunk = encode(Core(runs=views, live=live))
        if len(chunk) <= _METRICS_SIZE or steps <= _FEWEST_STEPS:
            return chunk
        steps = min(steps, max(len(view.steps) for view in views)) // 2


def title(readers: list[RunReader]) -> str:
    """Return the title of a page about these runs."""
    return f"{', '.join(names(readers))} \N{MIDDLE DOT} rlsync"


def _contents(reader: RunReader, size: int, most: int) -> Contents:
    pieces = reader.pieces()
    return Contents(pack_rollouts(reader.rollouts, pieces, size=size, most=most), pieces is not None)


def _write(out: Path, parts: Iterable[str]) -> int:
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.writelines(parts)
        size = part.stat().st_size
        part.replace(out)
        return size
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise ConfigError(
            f"--out={out}: the report cannot be written there ({error.strerror}). Give a file in a writable folder"
        ) from error
