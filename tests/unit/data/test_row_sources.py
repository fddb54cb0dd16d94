from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from rlsync.config.data import DataConfig, DataSource
from rlsync.data.open_source import open_source
from rlsync.data.problem import Split
from rlsync.data.source import ProblemSource
from rlsync.errors import DataError

ROWS: list[dict[str, Any]] = [{"prompt": f"What is {i}?", "answer": i, "level": i % 3} for i in range(200)]


def write(path: Path, rows: list[Any]) -> str:
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    return str(path)


def open_file(path: str, **changes: Any) -> ProblemSource:
    return open_source(DataConfig(source=DataSource.file, path=path, **changes))


def prompts(source: ProblemSource, split: Split, seed: int = 0, count: int = 10**6) -> list[str]:
    return [problem.prompt for problem in source.problems(split, count, seed)]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_splits_partition_the_file(tmp_path: Path, suffix: str) -> None:
    source = open_file(write(tmp_path / f"data.{suffix}", ROWS))
    parts = [prompts(source, split, seed) for seed, split in enumerate(Split)]
    assert all(parts)
    assert sorted(prompt for part in parts for prompt in part) == sorted(row["prompt"] for row in ROWS)


def test_both_formats_give_equal_problems(tmp_path: Path) -> None:
    json_lines, parquet = (
        open_file(write(tmp_path / name, ROWS)).problems(Split.train, 10**6, 1) for name in ("a.jsonl", "a.parquet")
    )
    assert json_lines == parquet
    assert json_lines[0].metadata["level"] == int(json_lines[0].answer) % 3


def test_seed_orders_and_count_limits(tmp_path: Path) -> None:
    source = open_file(write(tmp_path / "data.jsonl", ROWS))
    assert prompts(source, Split.train, seed=1) == prompts(source, Split.train, seed=1)
    assert prompts(source, Split.train, seed=1) != prompts(source, Split.train, seed=2)
    assert prompts(source, Split.train, seed=1, count=5) == prompts(source, Split.train, seed=1)[:5]


def test_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    forward = open_file(write(tmp_path / "a.jsonl", ROWS))
    backward = open_file(write(tmp_path / "b.jsonl", ROWS[::-1]))
    assert prompts(forward, Split.train) == prompts(backward, Split.train)


@pytest.mark.parametrize(
    ("answer", "text"), [(7.0, "7"), (-0.0, "0"), (4.5, "4.5"), (7, "7"), (10**30, "1" + "0" * 30), ("7.0", "7.0")]
)
def test_numbers_as_answers(tmp_path: Path, answer: Any, text: str) -> None:
    source = open_file(write(tmp_path / "data.jsonl", [{**row, "answer": answer} for row in ROWS]))
    assert source.problems(Split.train, 1, 0)[0].answer == text


def test_equal_prompts_are_one_problem(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    open_file(write(tmp_path / "data.jsonl", ROWS))
    assert not caplog.records  # the control
    rows = [*ROWS, {"prompt": ROWS[0]["prompt"], "answer": "other"}]
    source = open_file(write(tmp_path / "data.jsonl", rows))
    (warning,) = caplog.messages
    assert "1 of 201 rows have the prompt of an earlier row" in warning
    found = [problem for split in Split for problem in source.problems(split, 10**6, 0)]
    assert len(found) == len(ROWS)
    assert next(problem.answer for problem in found if problem.prompt == ROWS[0]["prompt"]) == "0"


def test_eval_path_alone_is_held_out(tmp_path: Path) -> None:
    extra = {"prompt": "only here", "answer": 7}
    source = open_file(
        write(tmp_path / "train.jsonl", ROWS), eval_path=write(tmp_path / "eval.parquet", [*ROWS[:20], extra])
    )
    held_out = set(prompts(source, Split.held_out))
    rest = set(prompts(source, Split.train)) | set(prompts(source, Split.warm_start))
    assert held_out == {row["prompt"] for row in ROWS[:20]} | {"only here"}
    assert rest == {row["prompt"] for row in ROWS[20:]}


def test_template_reads_columns_and_the_named_prompt_column(tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", [{"problem": "2+2", "solution": 4.5, "unit": "m"}] * 2)
    source = open_file(
        path,
        prompt_column="problem",
        answer_column="solution",
        template="{question} in {unit}?",
        eval_path=write(tmp_path / "eval.jsonl", [{"problem": "1+1", "solution": "2", "unit": "s"}]),
    )
    (problem,) = source.problems(Split.held_out, 5, 0)
    assert problem.prompt == "1+1 in s?"
    assert source.score(problem, " 2\n") == 1.0
    assert source.score(problem, "22") == 0.0


def test_a_split_without_problems(tmp_path: Path) -> None:
    source = open_file(write(tmp_path / "data.jsonl", ROWS), warm_start_percent=0)
    with pytest.raises(DataError, match=r"data\.path=.*no problems in the split warm_start \(train \d+, warm_start 0"):
        source.problems(Split.warm_start, 1, 0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data.csv", "a,b", r"data\.path=.*the suffix \.csv\. Give a \.jsonl"),
        ("data.jsonl", "", "has no rows"),
        ("data.jsonl", '{"prompt": "a", "answer": "b"}\n{oops', "line 2 is not JSON"),
        ("data.jsonl", "[1]", "line 1 is a list, but must be a JSON object"),
        (
            "data.jsonl",
            '{"promt": "a", "answer": "b"}',
            r"data\.prompt_column='prompt'.*has promt, answer.*data\.prompt_column=promt",
        ),
        (
            "data.jsonl",
            '{"prompt": "a", "zzz": "b"}',
            r"data\.answer_column='answer'.*has prompt, zzz.*Set data\.answer_column",
        ),
        (
            "data.jsonl",
            '{"prompt": "a", "answer": "b"}\n{"prompt": [{"role": "user"}], "answer": "b"}',
            r"row 2 .*'prompt'.*\(list\)",
        ),
        ("data.jsonl", '{"prompt": "a", "answer": null}', r"row 1 .*'answer'.*NoneType"),
        ("data.jsonl", '{"prompt": " ", "answer": "b"}', r"row 1 .*not empty"),
        (
            "data.jsonl",
            '{"prompt": "a", "answer": NaN}',
            r"row 1 of data\.path=.*'answer' is nan, but must be a finite",
        ),
        ("data.jsonl", '{"prompt": "a", "answer": -1e999}', r"row 1 .*'answer' is -inf, but must be a finite number"),
        ("data.jsonl", '{"prompt": "a", "answer": "\\ud83d"}', r"row 1 .*the answer .* is not valid Unicode"),
        (
            "data.jsonl",
            '{"prompt": "a \\ud83d", "answer": "b"}',
            r"row 1 .*not valid Unicode: .*surrogates.*remove the row",
        ),
        ("data.parquet", "not parquet", "not a readable parquet file"),
    ],
)
def test_malformed_files(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        open_file(str(tmp_path / name))


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.path=.*no such file"):
        open_file(str(tmp_path / "absent.jsonl"))
    with pytest.raises(DataError, match=r"data\.eval_path=.*no such file"):
        open_file(write(tmp_path / "data.jsonl", ROWS), eval_path=str(tmp_path / "absent.jsonl"))


def test_hub_rows_are_handled_as_a_file_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def load_dataset(*args: Any, **options: Any) -> datasets.Dataset:
        calls.append((args, options))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source = open_source(DataConfig(source=DataSource.hub, path="a/b", subset="main", hub_split="test"))
    assert calls == [(("a/b", "main"), {"split": "test"})]
    assert prompts(source, Split.train) == prompts(open_file(write(tmp_path / "data.jsonl", ROWS)), Split.train)


@pytest.mark.parametrize("error", [ConnectionError("Couldn't reach"), ValueError("Unknown split"), RuntimeError("x")])
def test_hub_failures_are_readable(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def load_dataset(*args: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError, match=rf"data\.path='a/b'.*{error}.*network"):
        open_source(DataConfig(source=DataSource.hub, path="a/b"))
