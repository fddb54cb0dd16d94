from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rlsync.config.data import DataConfig, DataSource
from rlsync.data.mixture import part_at
from rlsync.data.open_source import open_source
from rlsync.data.problem import Split
from rlsync.data.source import ProblemSource
from rlsync.errors import DataError

ALL = 10**4


def table(path: Path, name: str, rows: range, **changes: Any) -> DataConfig:
    path.write_text("\n".join(json.dumps({"prompt": f"{name} {i}", "answer": str(i)}) for i in rows))
    return DataConfig(source=DataSource.file, path=str(path), **changes)


def mix(**parts: DataConfig) -> DataConfig:
    return DataConfig(source=DataSource.mixture, parts=parts, held_out_percent=20, warm_start_percent=10)


@pytest.fixture
def mixture(tmp_path: Path) -> ProblemSource:
    rows = table(tmp_path / "rows.jsonl", "row", range(300), weight=3.0)
    return open_source(mix(rows=rows, sums=DataConfig(task_args={"max_terms": 3})))


def test_turns_are_a_pure_function_with_the_right_shares() -> None:
    weights = {"a": 1.0, "b": 2.0, "c": 7.0}
    for seed, first in ((0, 0), (1, 0), (1, 12345)):
        for count in (10, 100, 1000):
            counts = Counter(part_at(seed, index, weights) for index in range(first, first + count))
            assert all(abs(counts[name] - count * weights[name] / 10) < 3 for name in weights)
    assert [part_at(5, i, weights) for i in range(50)] == [
        part_at(5, i, {name: weights[name] for name in "cab"}) for i in range(50)
    ]
    assert [part_at(5, i, weights) for i in range(50)] != [part_at(6, i, weights) for i in range(50)]
    # The first parts for seed 0, which are the same on every machine and Python version.
    assert "".join(part_at(0, i, weights) for i in range(12)) == "bccbccccbcca"


def test_problems_know_their_part_and_come_by_weight(mixture: ProblemSource) -> None:
    problems = mixture.problems(Split.train, 100, seed=1)
    counts = Counter(problem.part for problem in problems)
    assert len(problems) == 100
    assert abs(counts["rows"] - 75) <= 2
    assert all((problem.part == "rows") == problem.prompt.startswith("row ") for problem in problems)
    assert problems == mixture.problems(Split.train, 100, seed=1)
    assert problems[:30] == mixture.problems(Split.train, 30, seed=1)
    assert problems != mixture.problems(Split.train, 100, seed=2)


def test_a_finite_part_gives_all_it_has(mixture: ProblemSource) -> None:
    rows = [p for p in mixture.problems(Split.train, 1000, 0) if p.part == "rows"]
    assert len(rows) == len({p.id for p in rows}) < 300


def test_the_part_s_own_scorer_scores(mixture: ProblemSource) -> None:
    problems = mixture.problems(Split.train, 40, seed=1)
    row = next(p for p in problems if p.part == "rows")
    total = next(p for p in problems if p.part == "sums")
    assert mixture.score(row, row.answer) == 1.0
    assert mixture.score(row, f"{row.answer}.0") == 0.0  # letter for letter
    assert mixture.score(total, f"{total.answer}.0") == 1.0  # as a number


def test_splits_are_disjoint_though_parts_share_prompts(tmp_path: Path) -> None:
    """Part b has a separate held-out table, and its percentages would split prompts differently from a's."""
    a = table(tmp_path / "a.jsonl", "same", range(200), held_out_percent=5, warm_start_percent=50)
    table(tmp_path / "held.jsonl", "same", range(150, 220))
    b = table(tmp_path / "b.jsonl", "same", range(100, 220), eval_path=str(tmp_path / "held.jsonl"))
    source = open_source(mix(a=a, b=b))
    parts = {split: {p.prompt for p in source.problems(split, ALL, seed)} for seed, split in enumerate(Split)}
    assert all(parts.values())
    assert {f"same {i}" for i in range(150, 220)} <= parts[Split.held_out]
    assert not parts[Split.train] & parts[Split.held_out]
    assert not parts[Split.warm_start] & parts[Split.held_out]
    assert not parts[Split.train] & parts[Split.warm_start]
    # Control: part a on its own trains on prompts that b holds out.
    assert {p.prompt for p in open_source(a).problems(Split.train, ALL, 0)} & parts[Split.held_out]


def test_a_prompt_of_two_parts_is_one_problem(tmp_path: Path) -> None:
    a, b = (table(tmp_path / f"{name}.jsonl", "same", range(50)) for name in "ab")
    problems = open_source(mix(a=a, b=b)).problems(Split.train, ALL, 0)
    assert len({p.id for p in problems}) == len(problems) <= 50
    assert {p.part for p in problems} == {"a", "b"}


def test_errors_name_the_part(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.parts\.a: data\.path=.*no such file"):
        open_source(mix(a=DataConfig(source=DataSource.file, path=str(tmp_path / "absent.jsonl"))))
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match=r"data\.parts\.a: .*has no rows"):
        open_source(mix(a=DataConfig(source=DataSource.file, path=str(tmp_path / "empty.jsonl"))))
    held = table(tmp_path / "one.jsonl", "x", range(1), eval_path=str(tmp_path / "one.jsonl"))
    with pytest.raises(DataError, match=r"data\.parts\.a: .*no problems in the split train"):
        open_source(mix(a=held)).problems(Split.train, 10, 0)
