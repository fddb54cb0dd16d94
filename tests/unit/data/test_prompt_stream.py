from __future__ import annotations

import pytest

from rlsync.data.prompts import PromptState, PromptStream
from rlsync.errors import DataError
from rlsync.types import Problem

PROBLEMS = [Problem(id=f"{i:04x}", prompt=f"p{i}", answer="a") for i in range(10)]


def ids(problems: list[Problem]) -> list[str]:
    return [problem.id for problem in problems]


def test_every_epoch_holds_every_problem_in_its_own_order() -> None:
    stream = PromptStream(PROBLEMS, seed=1)
    first, second = ids(stream.next(10)), ids(stream.next(10))
    assert sorted(first) == sorted(second) == ids(PROBLEMS)
    assert first != second


def test_the_seed_alone_decides() -> None:
    assert ids(PromptStream(PROBLEMS, seed=1).next(25)) == ids(PromptStream(PROBLEMS[::-1], seed=1).next(25))
    assert ids(PromptStream(PROBLEMS, seed=1).next(25)) != ids(PromptStream(PROBLEMS, seed=2).next(25))


def test_batches_do_not_change_the_stream() -> None:
    whole, parts = PromptStream(PROBLEMS, seed=1), PromptStream(PROBLEMS, seed=1)
    expected = ids(whole.next(35))
    assert ids([problem for count in (3, 0, 7, 4, 21) for problem in parts.next(count)]) == expected


@pytest.mark.parametrize("before", [0, 3, 10, 17, 20])
def test_resume_goes_on_where_it_stopped(before: int) -> None:
    stream = PromptStream(PROBLEMS, seed=1)
    stream.next(before)
    resumed, fresh = PromptStream(PROBLEMS, seed=1), PromptStream(PROBLEMS, seed=1)
    resumed.restore(stream.state)
    rest = ids(stream.next(15))
    assert ids(resumed.next(15)) == rest
    # Control: a stream that was not restored is elsewhere.
    assert (ids(fresh.next(15)) == rest) == (before == 0)


def test_empty() -> None:
    with pytest.raises(DataError, match="no training problems"):
        PromptStream([], seed=1)


def test_state_of_other_data() -> None:
    with pytest.raises(DataError, match="problem 11 of epoch 0, but the data has 10"):
        PromptStream(PROBLEMS, seed=1).restore(PromptState(epoch=0, index=11))
