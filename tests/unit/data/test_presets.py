r"""The data presets and answer parsers, on rows of the published data sets' form; nothing is downloaded."""

from __future__ import annotations

from typing import Any

import datasets
import pytest

from rlsync.config.compose import compose_train
from rlsync.config.data import AnswerParser, DataConfig, DataSource
from rlsync.data.answers import PARSERS, after_hashes, boxed
from rlsync.data.columns import value_at
from rlsync.data.open_source import open_source
from rlsync.data.problem import Problem, Split
from rlsync.data.source import ProblemSource
from rlsync.errors import DataError

GSM8K = [
    {"question": "Natalia sold 48 clips and then half as many. How many?", "answer": "Half is <<48/2=24>>24.\n#### 72"},
    {"question": "What do 3 houses at $500,000 cost?", "answer": "3 * 500000 = 1500000\n#### 1,500,000"},
]
MATH = [
    {
        "problem": "What is $x$?",
        "level": "Level 1",
        "type": "Algebra",
        "solution": r"First \boxed{1}, so $\boxed{x^{2}}$.",
    },
    {"problem": "Half of one?", "level": "Level 5", "type": "Algebra", "solution": r"It is $\boxed{\frac{1}{2}}$."},
]
DAPO = [
    {
        "data_source": "math_dapo",
        "prompt": [{"content": f"Solve step by step.\n\nProblem {i}\n\nEnd with Answer:", "role": "user"}],
        "ability": "MATH",
        "reward_model": {"ground_truth": str(i), "style": "rule-lighteval/MATH_v2"},
        "extra_info": {"index": f"{i}"},
    }
    for i in (34, 35, 36, 37, 38, 39, 34)
]
ROWS = {"openai/gsm8k": GSM8K, "DigitalLearningGmbH/MATH-lighteval": MATH, "BytedTsinghua-SIA/DAPO-Math-17k": DAPO}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """A fake hub whose train splits are the rows above and whose test splits are the first row of each."""
    calls: list[tuple[Any, ...]] = []

    def load_dataset(path: str, subset: str | None, *, split: str) -> datasets.Dataset:
        calls.append((path, subset, split))
        return datasets.Dataset.from_list(ROWS[path][:1] if split == "test" else ROWS[path])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return calls


def opened(preset: str) -> ProblemSource:
    return open_source(compose_train([f"data={preset}", "rollout.max_model_len=2048"]).data)


def only(source: ProblemSource, split: Split) -> Problem:
    (problem,) = source.problems(split, 10, 0)
    return problem


def test_gsm8k(hub: list[tuple[Any, ...]]) -> None:
    source = opened("gsm8k")
    assert hub == [("openai/gsm8k", "main", "test"), ("openai/gsm8k", "main", "train")]
    held_out, training = only(source, Split.held_out), only(source, Split.train)
    assert (held_out.answer, training.answer) == ("72", "1500000")
    assert training.prompt == GSM8K[1]["question"] + "\nThink step by step, and put the final number in \\boxed{}."
    assert source.score(training, "1500000") == 1.0


def test_math(hub: list[tuple[Any, ...]]) -> None:
    source = opened("math")
    assert {call[1:] for call in hub} == {("default", "test"), ("default", "train")}
    assert (only(source, Split.held_out).answer, only(source, Split.train).answer) == ("x^{2}", r"\frac{1}{2}")
    assert only(source, Split.train).prompt.startswith("Half of one?\n")


def test_dapo_math(hub: list[tuple[Any, ...]]) -> None:
    source = opened("dapo_math")
    assert [call[1:] for call in hub] == [(None, "train")]
    problems = source.problems(Split.train, 100, 0)
    assert 0 < len(problems) <= 6  # the row that repeats is one problem
    assert all(f"Problem {problem.answer}\n" in problem.prompt for problem in problems)


def test_countdown_needs_no_hub() -> None:
    source = opened("countdown")
    (problem,) = source.problems(Split.train, 1, 0)
    assert source.score(problem, problem.answer) == 1.0
    assert source.score(problem, "1") < 1.0


@pytest.mark.parametrize(
    ("text", "answer"),
    [("so\n#### 72", "72"), ("#### 1\n#### -1,234.5 ", "-1234.5"), ("####7", "7")],
)
def test_after_hashes(text: str, answer: str) -> None:
    assert after_hashes(text) == answer


@pytest.mark.parametrize("text", ["72", "", "####", "#### \n"])
def test_no_hashes(text: str) -> None:
    with pytest.raises(ValueError, match="####"):
        after_hashes(text)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{5}", "5"),
        (r"$\boxed{1}$ then $\boxed{ \frac{1}{2} }$.", r"\frac{1}{2}"),
        (r"\boxed{\left\{1, \{2\}\right\}} and {more}", r"\left\{1, \{2\}\right\}"),
        (r"$\fbox{a}$", "a"),
        (r"so $\boxed 5$ it is", "5"),
        (r"\boxed {7}", "7"),
    ],
)
def test_boxed(text: str, answer: str) -> None:
    assert boxed(text) == answer


@pytest.mark.parametrize("text", ["5", "", r"\boxed{", r"\boxed{1", r"\boxed{}", r"\boxed{1} \boxed{\frac{1}{2}"])
def test_no_box(text: str) -> None:
    with pytest.raises(ValueError, match="boxed"):
        boxed(text)


def test_every_parser_has_a_function() -> None:
    assert PARSERS.keys() == set(AnswerParser)
    assert PARSERS[AnswerParser.none](" as it is ") == " as it is "


def test_nested_columns() -> None:
    row = {"a": {"b": [{"c": 1}, "x"]}, "a.b": "flat", "n": None}
    assert value_at(row, "a.b") == "flat"  # a column with exactly this name takes precedence
    assert value_at(row, "a.b.0.c") is None or value_at({"a": row["a"]}, "a.b.0.c") == 1
    assert value_at({"a": row["a"]}, "a.b.1") == "x"
    assert [value_at(row, path) for path in ("z", "n.x", "a.z", "a.b.9")] == [None] * 4
    assert value_at({"a": row["a"]}, "a.b.9") is None
    assert value_at({"a": "text"}, "a.0") is None


@pytest.mark.parametrize(
    ("changes", "rows", "message"),
    [
        ({}, [], "has no rows"),
        ({"answer_parser": AnswerParser.gsm8k}, [{"prompt": "p", "answer": "72"}],
         r"row 1 of .*=gsm8k finds no answer in column 'answer', '72': no answer follows ####.*another parser"),
        ({"answer_parser": AnswerParser.boxed}, [{"prompt": "p", "answer": r"\boxed{1"}],
         r"row 1 .*boxed.*do not close"),
        ({"answer_column": "a.b"}, [{"prompt": "p", "a": {"b": "1"}}, {"prompt": "q", "a": {"b": None}}],
         r"row 2 .*'a\.b' is None \(NoneType\)"),
        ({"answer_column": "a.c"}, [{"prompt": "p", "a": {"b": "1"}}], r"row 1 .*'a\.c' is None"),
        ({"answer_column": "x.c"}, [{"prompt": "p", "a": {"b": "1"}}], r"data\.answer_column='x\.c' is not a column"),
        ({"prompt_column": "m.0.content"}, [{"m": [], "answer": "1"}], r"row 1 .*'m\.0\.content' is None"),
        ({"prompt_column": "m"}, [{"m": ["a"], "answer": "1"}], r"row 1 .*'m' is \['a'\] \(list\), but must be text"),
    ],
)  # fmt: skip
def test_hostile_rows(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], rows: list[dict[str, Any]], message: str
) -> None:
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.Dataset.from_list(rows))
    with pytest.raises(DataError, match=message):
        open_source(DataConfig(source=DataSource.hub, path="a/b", **changes))
