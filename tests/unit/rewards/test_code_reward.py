"""Programs in completions, and the forms in which data sets give tests."""

import json

import pytest

from rlsync.config.data import DataConfig
from rlsync.config.reward import RewardConfig, RewardKind
from rlsync.data.open_source import open_source
from rlsync.data.problem import Problem, Split
from rlsync.data.row_source import RowSource, Table
from rlsync.errors import DataError
from rlsync.rewards.code_blocks import extract_program
from rlsync.rewards.code_reward import CodeReward
from rlsync.rewards.code_tests import read_tests
from rlsync.rewards.scorer import Scorer
from rlsync.sandbox.start import Limits

PROGRAM = "print(int(input()) + 1)"
ADD = "def add(a, b):\n    return a + b"
LIMITS = Limits(seconds=4, memory_mib=400)


def _problem(answer, **row):
    return Problem(id="p", prompt="", answer=answer if isinstance(answer, str) else json.dumps(answer), metadata=row)


@pytest.mark.parametrize(
    "completion",
    [
        f"```Python\n{PROGRAM}\n```", f"```python3\n{PROGRAM}\n```", f"```py3\n{PROGRAM}\n```",
        f"```PYTHON3.11\n{PROGRAM}\n```", f"``` python\n{PROGRAM}\n```", f"```python title=a\n{PROGRAM}\n```",
        f"Here:\n```python\n{PROGRAM}\n", f"Here: ```python\n{PROGRAM}\n```", f"```python\n{PROGRAM}```",
        f"```json\n{{}}\n```\nNow the code:\n```python\n{PROGRAM}\n```",
        f"```cpp\nint main() {{}}\n```\n```python\n{PROGRAM}\n```",
        f"```python\n{PROGRAM}\n```\n```bash\npip install x\n```",
        f"```python\n{PROGRAM}\n```\nOutput:\n```\n3\n```", f"~~~python\n{PROGRAM}\n~~~", f"~~~\n{PROGRAM}\n~~~",
        f"```python\r\n{PROGRAM}\r\n```", f"````python\n{PROGRAM}\n````", f"```\n{PROGRAM}\n```", PROGRAM,
        f"```python\nprint(0)\n```\nBetter:\n```python\n{PROGRAM}\n```",
        f"1. So:\n   ```python\n   {PROGRAM}\n   ```", f"```{{.python}}\n{PROGRAM}\n```",
        f"<think>```python\nx\n```</think>\n```py\n{PROGRAM}\n```",
    ],
)  # fmt: skip
def test_the_program_of_a_completion(completion):
    assert extract_program(completion).strip() == PROGRAM


def test_a_block_in_another_language_is_no_program():
    assert extract_program("```json\n{}\n```") != "{}"
    assert extract_program("```\nprint(1)\n```\n```json\n{}\n```") == "print(1)"


@pytest.mark.parametrize(
    ("answer", "program"),
    [
        ([{"input": "", "output": "1\r\n2\r\n"}], "print(1)\nprint(2)"),
        ([{"input": "", "output": "1 \n2\n"}], "print(1)\nprint(2)"),
        ([{"input": "", "output": "7" * 100_000}], "print('7' * 100_000)"),
        ({"inputs": ["1\n", "5\n"], "outputs": ["2\n", "6\n"]}, PROGRAM),
        ({"input": ["1\n"], "output": ["2\n"]}, PROGRAM),
        ({"inputs": [["1"]], "outputs": [["2"]]}, PROGRAM),
        ({"fn_name": "add", "inputs": [[1, 2]], "outputs": [3]}, ADD),
        ({"fn_name": "add", "inputs": [[1, 2]], "outputs": [[3]]}, ADD),
        ({"fn_name": "add", "inputs": [[[1], [2]]], "outputs": [[1, 2]]}, ADD),
        (
            {"fn_name": "add", "inputs": [[1, 2]], "outputs": [3]},
            "class Solution:\n    def add(self, a, b): return a + b",
        ),
        ({"fn_name": "f", "inputs": [[]], "outputs": [[1, [2, 0.3333333]]]}, "def f(): return (1, [2, 1 / 3])"),
        ({"fn_name": "f", "inputs": [[]], "outputs": [{"1": True}]}, "def f(): return {1: True}"),
        (["assert add(1, 2) == 3", "assert add(1, 1) == 2"], ADD),
        (["assert add(1, 2) == 3"], f"```python\n{ADD}\n```"),
        ("assert add(1, 2) == 3", ADD),
        ([{"input": "1\n2", "output": "3", "testtype": "functional", "fn_name": "add"}], ADD),
    ],
)
def test_forms_of_tests(answer, program):
    reward = CodeReward(LIMITS, partial=False)
    assert reward(program, _problem(answer)) == 1.0
    assert reward("def add(a, b): return 4\ndef f(): return 4\nprint(4)", _problem(answer)) == 0.0  # the control


def test_the_row_may_name_the_function():
    human_eval = "def check(candidate):\n    assert candidate(1, 2) == 3\n"
    assert CodeReward(LIMITS, partial=False)(ADD, _problem(human_eval, entry_point="add")) == 1.0
    assert CodeReward(LIMITS, partial=False)("def add(a, b): pass", _problem(human_eval, entry_point="add")) == 0.0
    answer = [{"input": "1\n2", "output": "3", "testtype": "functional"}]
    for row in ({"fn_name": "add"}, {"metadata": json.dumps({"func_name": "add"})}, {"metadata": {"func_name": "add"}}):
        assert CodeReward(LIMITS, partial=False)(ADD, _problem(answer, **row)) == 1.0


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([{"in": 1}], 'a test needs "input" and "output"'),
        ([{"input": "1 2", "output": "3", "testtype": "functional"}], "no field names it"),
        ([{"input": "1", "output": "3", "testtype": "odd"}], "\"testtype\" must be"),
        ({"inputs": ["1"], "outputs": []}, "two lists of the same length"),
        ({"inputs": [{"a": 1}], "outputs": ["1"]}, "text or a list of lines"),
        ({"fn_name": "f", "inputs": [3], "outputs": [3]}, "the arguments of a call"),
        ([], "it cannot be '\\[\\]'"), ([1], "it cannot be"), ("42", "it cannot be '42'"),
        ("assert add(1, 2 == 3", "does not compile"), ("eJwLzy/KSVEEABxJBD4=", "does not compile"),
        ("assert True", "every program would pass"),
        ("def check(f):\n    assert f(1) == 1", "every program would pass"),
        ("import math\nassert math.pi > 3", "every program would pass"), ("assert abs(-1) == 1", "every program would"),
    ],
)  # fmt: skip
def test_other_forms_are_refused(answer, message):
    with pytest.raises(DataError, match=message):
        read_tests(_problem(answer))


def test_bad_tests_are_refused_by_row_and_column_before_anything_starts():
    rows = [{"q": f"add {i}", "tests": ["assert add(1, 2) == 3"]} for i in range(3)] + [
        {"q": "x", "tests": ["assert 1"]}
    ]
    config = DataConfig(prompt_column="q", answer_column="tests", path="p", held_out_percent=1, warm_start_percent=0)
    source = RowSource(config, Table(name="data.path=p", rows=rows))
    problems = source.problems(Split.train, 9, 0)
    scorer = Scorer(RewardConfig(kind=RewardKind.code), source)
    with pytest.raises(DataError, match=r"row 4 of data.path=p, column 'tests': the tests use no name"):
        scorer.check(problems, lambda text: None)
    scorer.check([p for p in problems if "assert 1" not in p.answer], lambda text: None)
    with pytest.raises(DataError, match=r"row \d of data.path=p, column 'tests' has a list or an object"):
        Scorer(RewardConfig(kind=RewardKind.exact), source).check(problems, lambda text: None)


def test_partial_credit_counts_tests():
    whole, part = CodeReward(LIMITS, partial=False), CodeReward(LIMITS, partial=True)
    tests = _problem([{"input": "1", "output": "2"}, {"input": "2", "output": "5"}])
    assert whole("print(int(input()) * 2)", tests) == 0.0
    assert part("print(int(input()) * 2)", tests) == 0.5
    assert part(ADD, _problem(["assert add(1, 2) == 3", "assert add(1, 2) == 4"])) == 0.5
    assert part("exit()", _problem(["assert add(1, 2) == 3", "assert add(1, 2) == 4"])) == 0.0


def test_the_scorer_runs_programs_side_by_side_and_survives_bad_ones():
    scorer = Scorer(RewardConfig(kind=RewardKind.code, code_timeout_s=1), open_source(DataConfig()))
    good, bad = _problem("assert f(1) == 2"), _problem([{"in": 1}])
    texts = ["def f(x): return x + 1", "while True: pass", "def f(x): return x", "x"]
    scores = scorer.score([good, good, good, bad], texts)
    assert [score.reward for score in scores] == [1.0, 0.0, 0.0, None]
    assert [score.error is None for score in scores] == [True, True, True, False]
