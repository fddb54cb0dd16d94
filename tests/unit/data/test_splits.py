from __future__ import annotations

import pytest

from rlsync.config.data import DataConfig
from rlsync.data.hashing import digest, problem_id
from rlsync.data.problem import Split
from rlsync.data.splits import split_of
from rlsync.data.template import fill
from rlsync.errors import DataError

PROMPTS = [f"problem {i}" for i in range(5000)]


def test_digest_is_the_same_on_every_machine() -> None:
    # printf '\005\0\0\0\0\0\0\0split\001\0\0\0\0\0\0\0a' | b2sum -l 64, read as little-endian.
    assert digest("split", "a") == 5286381879024228924
    assert problem_id("a") == f"{digest('a'):016x}"


def test_digest_keeps_parts_apart() -> None:
    assert digest("ab", "c") != digest("a", "bc")


def test_shares_are_those_of_the_config() -> None:
    config = DataConfig(held_out_percent=10, warm_start_percent=30)
    splits = [split_of(prompt, config) for prompt in PROMPTS]
    assert splits.count(Split.held_out) / len(splits) == pytest.approx(0.1, abs=0.02)
    assert splits.count(Split.warm_start) / len(splits) == pytest.approx(0.3, abs=0.03)


def test_no_warm_start_share() -> None:
    config = DataConfig(warm_start_percent=0)
    assert Split.warm_start not in {split_of(prompt, config) for prompt in PROMPTS}


def test_held_out_does_not_depend_on_the_warm_start_share() -> None:
    held_out = [
        [p for p in PROMPTS if split_of(p, DataConfig(warm_start_percent=share)) is Split.held_out] for share in (0, 30)
    ]
    assert held_out[0] == held_out[1]


def test_template_is_filled_from_fields_and_question() -> None:
    assert fill("{question} [{level:02d}] {{x}}", "2 + 2?", {"level": 3, "question": "hidden"}) == "2 + 2? [03] {x}"


def test_unknown_field_lists_what_there_is() -> None:
    with pytest.raises(DataError, match=r"data\.template=.*\{levl\}.*they have level, question"):
        fill("{question} {levl}", "q", {"level": 3})


@pytest.mark.parametrize("template", ["{", "{}", "{0}", "{question.x}", "{question:d}"])
def test_malformed_template(template: str) -> None:
    with pytest.raises(DataError, match=r"data\.template=.*cannot be filled"):
        fill(template, "q", {})
