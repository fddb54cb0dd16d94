"""Write the tables of docs/benchmarks.md from the rows in benchmarks/results/.

    python benchmarks/render.py            # rewrites what stands between the markers
    python benchmarks/render.py --check    # says which tables are out of date, and exits with 1 if one is

A table shows the newest row of each case on each device. It leaves out rows that were disturbed and rows that lack a
figure which the table compares.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from results import FOLDER, read
from tables import TABLES, Row, Table

PAGE = FOLDER.parent.parent / "docs" / "benchmarks.md"
MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def cases(table: Table, folder: Path) -> list[list[Row]]:
    """The undisturbed rows of each case, oldest first; cases in the order of their keys."""
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in read(folder / f"{table.file}.csv"):
        if not row["disturbed_by"] and all(row[column] for column in table.needs):
            found.setdefault((*(row[column] for column in table.key), row["device"]), []).append(row)
    keys = sorted(found, key=lambda key: [_sortable(part) for part in key])
    return [found[key] for key in keys if table.where(found[key][-1])]


def _sortable(part: str) -> tuple[bool, float, str]:
    return (False, float(part), "") if part.isdecimal() else (True, 0.0, part)


def rendered(table: Table, folder: Path) -> str:
    titles = list(table.columns)
    lines = [titles, ["--:" if title not in ("model", "phase", "kernels") else "---" for title in titles]]
    for rows in cases(table, folder):
        lines.append([cell(rows[-1], rows) for cell in table.columns.values()])
    return "".join("|" + "".join(f" {cell} |" if cell else " |" for cell in line) + "\n" for line in lines)


def page(old: str, folder: Path) -> str:
    return MARKED.sub(lambda found: found[1] + rendered(TABLES[found[2]], folder) + found[3], old)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--results", type=Path, default=FOLDER, help="folder of the tables")
    options = parser.parse_args()
    old = PAGE.read_text()
    new = page(old, options.results)
    if not options.check:
        PAGE.write_text(new)
    elif new != old:
        pairs = zip(MARKED.finditer(old), MARKED.finditer(new), strict=True)
        stale = [before[2] for before, after in pairs if before[0] != after[0]]
        raise SystemExit(f"out of date in docs/benchmarks.md: {', '.join(stale)}; run `make tables`")


if __name__ == "__main__":
    main()
