"""Scoring during generation, with async, batched and hanging functions."""

from __future__ import annotations

import asyncio
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch

from rlsync.config.compose import compose_train
from rlsync.config.data import DataConfig
from rlsync.config.reward import RewardConfig, RewardKind
from rlsync.data.char_tokenizer import build_char_tokenizer
from rlsync.data.open_source import open_source
from rlsync.data.problem import Problem
from rlsync.data.text import TextCodec, load_tokenizer
from rlsync.environments.conversation import Start
from rlsync.environments.conversation_player import ConversationPlayer
from rlsync.errors import ConfigError, RewardError, WorkerDiedError
from rlsync.rewards.scorer import Scorer
from rlsync.rewards.scoring import Scoring
from rlsync.rewards.weighted import ScoringRequest
from rlsync.samples import FinishReason, Rollout, Score

PROBLEMS = [Problem(id=f"id{i}", prompt="1+1=", answer=str(i)) for i in range(6)]
TEXTS = [str(i) for i in range(6)]
LIMIT_S = 60


@pytest.fixture
def scorer_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Scorer]:
    def make(function: Callable[..., Any], **settings: Any) -> Scorer:
        module = types.ModuleType("their_rewards")
        vars(module)["f"] = function
        monkeypatch.setitem(sys.modules, "their_rewards", module)
        config = RewardConfig(kind=RewardKind.function, function="their_rewards:f", **settings)
        return Scorer(config, open_source(DataConfig()))

    return make


def _rewards(scorer: Scorer) -> list[float | None]:
    return [score.reward for score in scorer.score(PROBLEMS, TEXTS)]


def _rollout(prompt: list[int], token: int) -> Rollout:
    tokens = torch.tensor([*prompt, token, 1])
    return Rollout(
        tokens=tokens, sampled=torch.arange(len(tokens)) >= len(prompt), logprobs=torch.zeros(len(tokens)),
        weight_version=torch.zeros(len(tokens), dtype=torch.int32), seed=0, finish_reason=FinishReason.stop,
    )  # fmt: skip


def test_a_rollout_is_scored_while_the_next_is_generated(tmp_path: Any, scorer_of: Any) -> None:
    """The engine continues only when its finished sample has a score, so without overlap neither would continue."""
    build_char_tokenizer(tmp_path, "0123456789+=")
    config = compose_train([])
    codec = TextCodec(load_tokenizer(str(tmp_path)), config.data)
    events: list[str] = []
    scored = {name: threading.Event() for name in TEXTS}

    def score(completion: str, problem: Problem) -> float:
        events.append(f"scored {completion}")
        scored[completion].set()
        return float(completion)

    class Engine:
        def generate(self, requests: Any) -> Any:
            for index in (4, 0, 5, 2, 1, 3):
                digit = codec.encode(Problem(id="", prompt=str(index), answer=""))[0]
                yield index, _rollout(requests[index].prompt, digit)
                assert scored[str(index)].wait(LIMIT_S)
                events.append(f"after {index}")

    starts = [Start(problem=problem, seed=0) for problem in PROBLEMS]
    with scorer_of(score).start(PROBLEMS) as scoring:
        episodes = ConversationPlayer(config.environment, config.rollout, Engine()).play(starts, codec, scoring.take)
        assert events == [f"{what} {i}" for i in (4, 0, 5, 2, 1, 3) for what in ("scored", "after")]
        scores = scoring.finish()
    assert [score.reward for score in scores] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]  # in the order of the problems
    assert [episode.scored for episode in episodes] == TEXTS
    assert scoring.seconds > 0


def test_batches_do_not_depend_on_what_is_finished_first(scorer_of: Any) -> None:
    calls: list[list[str]] = []

    def f(completions: list[str], problems: list[Problem]) -> list[float]:
        calls.append(completions)
        return [float(completion) + 10 * len(completions) for completion in completions]

    scorer, found = scorer_of(f, batched=True, batch_size=4), []
    for order in ([0, 1, 2, 3, 4, 5], [5, 3, 1, 4, 2, 0]):
        with scorer.start(PROBLEMS) as scoring:
            for index in order:
                scoring.add(index, TEXTS[index])
            found.append(scoring.finish())
    assert found[0] == found[1]
    assert [score.reward for score in found[0]] == [40, 41, 42, 43, 24, 25]
    assert sorted(calls[:2]) == sorted(calls[2:]) == [["0", "1", "2", "3"], ["4", "5"]]
    assert calls[:2] != calls[2:]  # the control: the second batch was complete first


def test_async_functions_run_side_by_side(scorer_of: Any) -> None:
    """Each call waits for the other of its pair; `parallel` limits the number of concurrent calls."""
    under_way, most = 0, 0
    together = asyncio.Event()

    async def f(completion: str, problem: Problem) -> float:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        if under_way == 2:
            together.set()
        await asyncio.wait_for(together.wait(), LIMIT_S)
        under_way -= 1
        return float(completion)

    assert _rewards(scorer_of(f, parallel=2)) == [0, 1, 2, 3, 4, 5]
    assert most == 2


def test_an_object_may_be_async_and_a_batch_too(scorer_of: Any) -> None:
    class Rewards:
        async def __call__(self, completions: list[str], problems: list[Problem]) -> list[float]:
            await asyncio.sleep(0)
            return [float(completion) for completion in completions]

    assert _rewards(scorer_of(Rewards(), batched=True)) == [0, 1, 2, 3, 4, 5]


def test_an_async_call_that_hangs_costs_its_sample_and_is_cancelled(scorer_of: Any) -> None:
    cancelled = threading.Event()

    async def f(completion: str, problem: Problem) -> float:
        if completion == "3":
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()
        return float(completion)

    scores = scorer_of(f, timeout_s=0.5).score(PROBLEMS, TEXTS)
    assert [score.reward for score in scores] == [0, 1, 2, None, 4, 5]
    assert "TimeoutError: took longer than reward.timeout_s=0.5 (sample: problem id3" in scores[3].error
    assert cancelled.wait(LIMIT_S)


def test_a_call_that_hangs_costs_its_sample(scorer_of: Any) -> None:
    release = threading.Event()

    def f(completion: str, problem: Problem) -> float:
        if completion == "3":
            release.wait(LIMIT_S)
        return float(completion)

    try:
        scores = scorer_of(f, timeout_s=0.5).score(PROBLEMS, TEXTS)
        assert [score.reward for score in scores] == [0, 1, 2, None, 4, 5]
        assert "took longer than reward.timeout_s=0.5" in scores[3].error
    finally:
        release.set()
    assert _rewards(scorer_of(f, timeout_s=0.5)) == [0, 1, 2, 3, 4, 5]  # the control


def test_what_a_batch_costs(scorer_of: Any) -> None:
    def raises(completions: list[str], problems: list[Problem]) -> list[float]:
        if "1" in completions:
            raise KeyError("x")
        return [1.0] * len(completions)

    assert _rewards(scorer_of(raises, batched=True, batch_size=2)) == [None, None, 1, 1, 1, 1]
    one_nan = scorer_of(lambda cs, ps: [float("nan" if c == "1" else c) for c in cs], batched=True)
    assert _rewards(one_nan) == [0, None, 2, 3, 4, 5]
    with pytest.raises(RewardError, match="it returned 1 numbers for 6 samples, but must return one each"):
        _rewards(scorer_of(lambda cs, ps: [1.0], batched=True))
    with pytest.raises(RewardError, match="TypeError"):
        _rewards(scorer_of(lambda cs, ps: 1.0, batched=True))


def test_a_function_may_even_leave(scorer_of: Any) -> None:
    def f(completion: str, problem: Problem) -> float:
        return float(completion) if completion != "1" else sys.exit("bye")

    assert _rewards(scorer_of(f)) == [0, None, 2, 3, 4, 5]


def test_a_dead_process_ends_the_run() -> None:
    class Dead:
        name, weight, threads, batch_size = "dead", 1.0, 1, 1

        def score(self, samples: list[ScoringRequest]) -> list[Score]:
            raise WorkerDiedError("gone")

    with Scoring([Dead()], PROBLEMS[:1], sums=False) as scoring:
        scoring.add(0, "x")
        with pytest.raises(WorkerDiedError, match="gone"):
            scoring.finish()


def test_a_call_that_never_returns_costs_its_samples_and_not_the_run(scorer_of: Callable[..., Scorer]) -> None:
    released = threading.Event()

    def hangs(completion: str, problem: Problem) -> float:
        if completion == "2":
            released.wait(LIMIT_S)
        return 1.0

    scores = scorer_of(hangs, finish_timeout_s=1.0).score(PROBLEMS[:4], TEXTS[:4])
    released.set()
    assert [score.reward for score in scores] == [
        1.0,
        1.0,
        None,
        None,
    ]  # there is one thread, so the last sample waited too
    assert scores[2].error == "not scored within reward.finish_timeout_s=1"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"finish_timeout_s": 0.0}, "reward.finish_timeout_s=0.0"),
        ({"batch_size": 0}, "reward.batch_size=0"),
        ({"parallel": 0}, "reward.parallel=0"),
    ],
)
def test_wrong_values_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RewardConfig(**settings)
