"""The tables of measured figures in benchmarks/results/: one CSV file a table, one row a case.

Every row has the columns of COMMON. Scripts append rows with `--record`; render.py shows the newest row of each case in
docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "results"
COMMON = ("date", "commit", "device", "torch", "disturbed_by", "note")
"""`commit` ends with a + if the tree had other changes; a row with `disturbed_by` is kept, but not shown."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--record", action="store_true", help="append the figures to the tables in --results")
    parser.add_argument("--results", type=Path, default=FOLDER, help="folder of the tables")
    parser.add_argument("--commit", help="what was measured; default: asked of git")
    parser.add_argument("--disturbed-by", default="", help="what else the machine did meanwhile")
    parser.add_argument("--note", default="", help="what else to know about the figures")


def append(table: str, rows: Sequence[Mapping[str, object]], options: argparse.Namespace, device: str) -> None:
    """Add rows to a table if the options say so; all of them have the table's own columns, None where not measured."""
    if not options.record or not rows:
        return
    common = {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": options.commit or _commit(),
        "device": device,
        "torch": _torch_version(),
        "disturbed_by": options.disturbed_by,
        "note": options.note,
    }
    write(options.results / f"{table}.csv", [{**common, **row} for row in rows])


def write(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Append rows; the first ones of a file decide its columns."""
    columns = list(rows[0])
    old = read(path) if path.is_file() else []
    if old and list(old[0]) != columns:
        raise ValueError(f"{path} has the columns {list(old[0])}, not {columns}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        if not old:
            writer.writeheader()
        for row in rows:
            writer.writerow({name: _text(value) for name, value in row.items()})


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def cpu() -> str:
    """The processor's model and how many cores this process may use."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{model or platform.machine()}, {len(os.sched_getaffinity(0))} cores"


def device_name(kind: str) -> str:
    """The GPU's name, or the processor's."""
    if kind != "cuda":
        return cpu()
    import torch

    return torch.cuda.get_device_name()


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.8g}" if isinstance(value, float) else str(value)


def _torch_version() -> str:
    from importlib.metadata import version

    return version("torch")


def _commit() -> str:
    def git(*words: str) -> str:
        command = ["git", *words]
        return subprocess.run(command, cwd=FOLDER.parent, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "..", ":(exclude)results")
        return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        raise SystemExit("--record: this is no git clone, so name the commit with --commit") from None
