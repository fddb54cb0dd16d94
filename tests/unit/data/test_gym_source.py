from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

import pytest

from rlsync.config.data import DataConfig
from rlsync.data.gym_source import GymSource
from rlsync.data.problem import Split
from rlsync.errors import ConfigError, DataError

SMALL = {"min_terms": 2, "max_terms": 2, "max_digits": 1}


def config(**changes: Any) -> DataConfig:
    return DataConfig(**{"task": "chain_sum", "task_args": {"max_terms": 3, "max_digits": 2}, **changes})


def prompts(source: GymSource, split: Split, count: int, seed: int) -> list[str]:
    return [problem.prompt for problem in source.problems(split, count, seed)]


def test_problems_are_distinct_and_repeatable() -> None:
    first = prompts(GymSource(config()), Split.train, 1500, seed=1)
    assert len(set(first)) == 1500
    assert first == prompts(GymSource(config()), Split.train, 1500, seed=1)
    assert first != prompts(GymSource(config()), Split.train, 1500, seed=2)


def test_problems_are_the_same_in_another_process() -> None:
    code = (
        "from rlsync.config.data import DataConfig; from rlsync.data.gym_source import GymSource; "
        "from rlsync.data.problem import Split; "
        "print([p.id for p in GymSource(DataConfig()).problems(Split.train, 5, 3)])"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    here = [problem.id for problem in GymSource(DataConfig()).problems(Split.train, 5, 3)]
    assert output.stdout.strip() == str(here)


def test_fewer_are_the_beginning_of_more() -> None:
    source = GymSource(config())
    assert prompts(source, Split.train, 10, 1) == prompts(source, Split.train, 1200, 1)[:10]


def test_splits_are_disjoint_whatever_the_seeds() -> None:
    # Nearly all of a small space, so that a split by seed would overlap.
    source = GymSource(config(task_args=SMALL))
    held_out = set(prompts(source, Split.held_out, 15, seed=0))
    warm_start = set(prompts(source, Split.warm_start, 40, seed=1))
    train = set(prompts(source, Split.train, 80, seed=2))
    assert not held_out & warm_start
    assert not held_out & train
    assert not warm_start & train


def test_control_two_seeds_of_one_split_do_overlap() -> None:
    source = GymSource(config(task_args=SMALL))
    assert set(prompts(source, Split.train, 80, seed=1)) & set(prompts(source, Split.train, 80, seed=2))


def test_too_few_problems_for_a_warm_start_says_how_many() -> None:
    with pytest.raises(
        DataError,
        match=r"chain_sum has too few problems: \d+ draws gave \d+ distinct .* warm_start, but 500.*max_digit",
    ):
        GymSource(config(task_args=SMALL)).problems(Split.warm_start, 500, seed=0)


def test_a_small_task_gives_all_it_has() -> None:
    source = GymSource(config(task_args=SMALL))
    assert 0 < len(source.problems(Split.train, 5000, 1)) < 5000


def test_warm_start_without_a_share() -> None:
    with pytest.raises(DataError, match="warm_start_percent=0"):
        GymSource(config(warm_start_percent=0)).problems(Split.warm_start, 1, seed=0)


def test_twenty_thousand_take_seconds() -> None:
    start = time.perf_counter()
    assert len(GymSource(DataConfig()).problems(Split.train, 20_000, seed=0)) == 20_000
    assert time.perf_counter() - start < 10


def test_template_reads_the_metadata() -> None:
    problem = GymSource(config(template="{expression}=")).problems(Split.train, 1, seed=0)[0]
    assert problem.prompt == problem.metadata["metadata"]["expression"] + "="


def test_unknown_template_field() -> None:
    with pytest.raises(DataError, match=r"expresion.*expression"):
        GymSource(config(template="{expresion}")).problems(Split.train, 1, seed=0)


def test_score_is_the_task_s_own_and_strips() -> None:
    maker, other = GymSource(config()), GymSource(config(task_args={"max_terms": 5}))
    problem = maker.problems(Split.train, 1, seed=0)[0]
    assert other.score(problem, f"  {problem.answer}.0 \n") == 1.0
    assert other.score(problem, str(int(problem.answer) + 1)) < 1.0
    assert other.score(problem, "") < 1.0


def test_task_without_one_answer() -> None:
    problem = GymSource(DataConfig(task="rush_hour")).problems(Split.train, 1, seed=0)[0]
    assert problem.answer == ""


def test_unknown_task_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"data\.task='chain_sums'.*chain_sum"):
        GymSource(config(task="chain_sums"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_term": 3}, "max_term.*Its arguments are .*max_terms"),
        ({"min_terms": 0}, "min_terms must be positive"),
        ({"max_terms": "six"}, "not supported between"),
        ({"seed": 3}, "sets seed"),
    ],
)
def test_bad_task_args(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"data\.task_args.*{message}"):
        GymSource(config(task_args=arguments))
