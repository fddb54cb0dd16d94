"""The measured figures: their files, and the tables that docs/benchmarks.md shows of them."""

import argparse
import ast
import csv
import re
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks/results"
PAGE = ROOT / "docs/benchmarks.md"
COMMON = ["date", "commit", "device", "torch", "disturbed_by", "note"]
LABELS = {*COMMON, "shape", "mode", "kernels", "variant", "phase", "tile", "digest"}
"""Columns that hold text."""


@pytest.fixture
def results(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import results

    return results


def _rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _check(*words):
    command = [sys.executable, str(ROOT / "benchmarks/render.py"), "--check", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_page_shows_the_newest_rows():
    done = _check()
    assert done.returncode == 0, done.stderr


def test_a_newer_row_makes_the_page_out_of_date(tmp_path):
    """The control; a disturbed row does not."""
    for path in FOLDER.glob("*.csv"):
        (tmp_path / path.name).write_text(path.read_text())
    table = tmp_path / "weight_sync.csv"
    last = _rows(table)[-1]
    for disturbed, code in (("tests", 0), ("", 1)):
        with table.open("a", newline="") as file:
            csv.DictWriter(file, last).writerow(last | {"sync_s": "9", "disturbed_by": disturbed})
        done = _check("--results", str(tmp_path))
        assert done.returncode == code, done.stderr
    assert "weight_sync" in done.stderr


def test_every_table_has_its_place_on_the_page(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from tables import TABLES

    assert sorted(re.findall(r"<!-- table: (\w+) -->", PAGE.read_text())) == sorted(TABLES)
    assert {table.file for table in TABLES.values()} == {path.stem for path in FOLDER.iterdir()}


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.stem)
def test_every_row_says_what_was_measured_where_and_when(path):
    rows = _rows(path)
    assert rows
    for row in rows:
        assert list(row)[: len(COMMON)] == COMMON
        assert date.fromisoformat(row["date"])
        assert re.fullmatch(r"[0-9a-f]{7,}\+?", row["commit"])
        assert row["device"]
        for column in row.keys() - LABELS:
            assert row[column] in ("", "yes", "no") or float(row[column]) >= 0, column


def _options(results, folder):
    parser = argparse.ArgumentParser()
    results.add_options(parser)
    return parser.parse_args(["--record", "--results", str(folder), "--commit", "abcdef0"])


def test_rows_are_appended(results, tmp_path):
    options = _options(results, tmp_path)
    results.append("made", [{"size": 1, "time_s": 0.12345678912, "equal": True}], options, "a device")
    results.append("made", [{"size": 2, "time_s": None, "equal": False}], options, "a device")
    first, second = _rows(tmp_path / "made.csv")
    assert (first["commit"], first["device"], first["time_s"], first["equal"]) == (
        "abcdef0", "a device", "0.12345679", "yes",
    )  # fmt: skip
    assert (second["size"], second["time_s"], second["equal"]) == ("2", "", "no")


def test_rows_with_other_columns_are_refused(results, tmp_path):
    options = _options(results, tmp_path)
    results.append("made", [{"size": 1}], options, "a device")
    with pytest.raises(ValueError, match=r"made\.csv has the columns"):
        results.append("made", [{"length": 1}], options, "a device")


def test_nothing_is_written_without_record(results, tmp_path):
    options = _options(results, tmp_path)
    options.record = False
    results.append("made", [{"size": 1}], options, "a device")
    assert list(tmp_path.iterdir()) == []


def _names(module):
    """What a module of rlsync defines or imports at its top level; parsed, because some need a GPU."""
    path = ROOT / module.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (leaf.id for target in targets for leaf in ast.walk(target) if isinstance(leaf, ast.Name))


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_what_a_script_imports_from_rlsync_exists(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("rlsync"):
            submodules = {child.stem for child in (ROOT / node.module.replace(".", "/")).glob("*")}
            assert {alias.name for alias in node.names} <= {*_names(node.module), *submodules}, node.module
