from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict

import pytest

from rlsync.data.problem import Problem
from rlsync.data.prompts import PromptState, PromptStream
from rlsync.errors import DataError

PROBLEMS = [Problem(id=f"{i:04x}", prompt=f"p{i}", answer="a") for i in range(10)]

SIZES = {"a": 5, "b": 40, "c": 1}
MIXED = [
    Problem(id=f"{name}{i:02x}", prompt=f"{name}{i}", answer="", part=name)
    for name, n in SIZES.items()
    for i in range(n)
]


def ids(problems: list[Problem]) -> list[str]:
    return [problem.id for problem in problems]


def test_every_epoch_holds_every_problem_in_its_own_order() -> None:
    stream = PromptStream(PROBLEMS, seed=1)
    first, second, third = (ids(stream.next(10)) for _ in range(3))
    assert first == sorted(second) == sorted(third) == ids(PROBLEMS)
    assert len({tuple(first), tuple(second), tuple(third)}) == 3
    assert ids(PromptStream(PROBLEMS, seed=2).next(20))[10:] != second


def test_more_problems_begin_as_fewer() -> None:
    fewer, more = PromptStream(PROBLEMS[:7], seed=1), PromptStream(PROBLEMS, seed=1)
    assert fewer.next(7) == more.next(7)
    assert fewer.state() == more.state()
    longer = PromptStream(PROBLEMS, seed=1)
    longer.restore(fewer.state())
    assert longer.next(5) == more.next(5)
    fewer.next(1)  # the control: its second epoch has begun, while the longer stream has more problems
    with pytest.raises(DataError, match="data has changed: the first 8 problems"):
        PromptStream(PROBLEMS, seed=1).restore(fewer.state())


def test_batches_do_not_change_the_stream() -> None:
    whole, parts = PromptStream(PROBLEMS, seed=1), PromptStream(PROBLEMS, seed=1)
    expected = ids(whole.next(35))
    assert ids([problem for count in (3, 0, 7, 4, 21) for problem in parts.next(count)]) == expected


@pytest.mark.parametrize("before", [0, 3, 10, 17, 20])
def test_resume_goes_on_where_it_stopped(before: int) -> None:
    stream = PromptStream(PROBLEMS, seed=1)
    stream.next(before)
    resumed, fresh = PromptStream(PROBLEMS, seed=1), PromptStream(PROBLEMS, seed=1)
    resumed.restore(stream.state())
    rest = ids(stream.next(15))
    assert ids(resumed.next(15)) == rest
    # Control: a stream that was not restored has another position.
    assert (ids(fresh.next(15)) == rest) == (before == 0)


@pytest.mark.parametrize("before", [0, 1, 17, 40, 200])
def test_a_mixture_resumes_too(before: int) -> None:
    weights = {"a": 1.0, "b": 3.0, "c": 0.5}
    stream = PromptStream(MIXED, 1, weights)
    stream.next(before)
    resumed = PromptStream(MIXED, 1, weights)
    resumed.restore(PromptState(**json.loads(json.dumps(asdict(stream.state())))))
    assert resumed.next(60) == stream.next(60)
    assert resumed.state() == stream.state()


def test_parts_come_by_weight_however_many_problems_they_have() -> None:
    drawn = PromptStream(MIXED, 1, {"a": 1.0, "b": 3.0, "c": 0.5}).next(900)
    counts = Counter(problem.part for problem in drawn)
    assert all(abs(counts[name] - share) < 3 for name, share in {"a": 200, "b": 600, "c": 100}.items())
    for name, size in SIZES.items():
        own = [problem.id for problem in drawn if problem.part == name]
        assert sorted(own[:size]) == sorted(own[size : 2 * size])  # whole epochs
        assert size == 1 or own[:size] != own[size : 2 * size]


def test_a_part_keeps_its_order_whatever_the_others_do() -> None:
    alone = PromptStream([p for p in MIXED if p.part == "b"], 1, {"b": 1.0}).next(100)
    mixed = [
        problem for problem in PromptStream(MIXED, 1, {"a": 9.0, "b": 1.0, "c": 1.0}).next(500) if problem.part == "b"
    ]
    assert mixed == alone[: len(mixed)]
    assert len(mixed) > 30


def test_a_part_without_problems() -> None:
    with pytest.raises(DataError, match=r"data\.parts\.d has no training problems"):
        PromptStream(MIXED, 1, {"a": 1.0, "d": 1.0}).next(10)


def test_empty() -> None:
    with pytest.raises(DataError, match="no training problems"):
        PromptStream([], seed=1)


@pytest.mark.parametrize(
    ("problems", "seed", "weights"),
    [(MIXED[1:], 1, {"a": 1.0, "b": 1.0}), (MIXED, 2, {"a": 1.0, "b": 1.0}), (MIXED, 1, {"a": 1.0, "b": 2.0})],
)
def test_state_of_other_data(problems: list[Problem], seed: int, weights: dict[str, float]) -> None:
    stream = PromptStream(MIXED, 1, {"a": 1.0, "b": 1.0})
    stream.next(12)
    with pytest.raises(
        DataError, match=r"data has changed: the first 12 problems.*Resume with the same data configuration, seed"
    ):
        PromptStream(problems, seed, weights).restore(stream.state())
