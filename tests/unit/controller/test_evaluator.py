"""The evaluator with a fake engine: its requests and counts, and pass@k compared with enumeration."""

from __future__ import annotations

import itertools
import json
import math
import sys
import types
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rlsync.config.compose import compose_train
from rlsync.controller.evaluate import write
from rlsync.controller.evaluator import EvalSet, Evaluator, draw_seed, pass_at_k
from rlsync.data.char_tokenizer import build_char_tokenizer
from rlsync.data.problem import Problem
from rlsync.data.text import TextCodec, load_tokenizer
from rlsync.rewards.scorer import Scorer
from rlsync.samples import FinishReason, Rollout, RolloutRequest, Score

PROBLEMS = [Problem(id=str(i), prompt=f"{i}+1=", answer=str(i + 1)) for i in range(4)]
EOS, ONE = 1, 3
"""Ids of <eos> and of `1` in the tokenizer below."""
CALL_BEGIN, CALL_END = 15, 16
"""Ids of the words of a tokenizer that has words."""


class FakeEngine:
    """Answers greedy requests and those with an even seed with `1`; the others reach the length limit with `2`."""

    def __init__(self) -> None:
        self.requests: list[RolloutRequest] = []

    def generate(self, requests: list[RolloutRequest]) -> Iterator[tuple[int, Rollout]]:
        self.requests += requests
        for index, request in reversed(list(enumerate(requests))):
            yield index, self._rollout(request)

    def _rollout(self, request: RolloutRequest) -> Rollout:
        right = request.greedy or request.seed % 2 == 0
        response = [ONE, EOS] if right else [ONE + 1] * request.max_tokens
        tokens = torch.tensor(request.prompt + response)
        sampled = torch.arange(len(tokens)) >= len(request.prompt)
        return Rollout(
            tokens=tokens,
            sampled=sampled,
            logprobs=torch.zeros(len(tokens)),
            weight_version=torch.zeros(len(tokens), dtype=torch.int32),
            seed=request.seed,
            finish_reason=FinishReason.stop if right else FinishReason.length,
        )


@pytest.fixture
def build(tmp_path: Path) -> Any:
    build_char_tokenizer(tmp_path / "tokenizer", "1234567890+=")

    def make(*overrides: str, names: tuple[str, ...] = ("held_out",)) -> tuple[Evaluator, FakeEngine, Any]:
        config = compose_train(["reward=exact", "rollout.max_tokens=5", *overrides])
        codec = TextCodec(load_tokenizer(str(tmp_path / "tokenizer")), config.data)
        scorer = Scorer(config.reward, source=None)  # type: ignore[arg-type]
        sets = [EvalSet(name=name, problems=PROBLEMS, codec=codec, scorer=scorer) for name in names]
        engine = FakeEngine()
        return Evaluator(config, engine, sets), engine, config

    return make


@pytest.mark.parametrize("samples", range(1, 8))
def test_pass_at_k_is_the_share_of_draws_with_a_right_one(samples: int) -> None:
    for right, k in itertools.product(range(samples + 1), range(1, samples + 1)):
        draws = list(itertools.combinations([True] * right + [False] * (samples - right), k))
        assert pass_at_k(samples, right, k) == pytest.approx(sum(map(any, draws)) / len(draws), abs=1e-15)


def test_pass_at_k_by_hand_and_at_its_ends() -> None:
    assert pass_at_k(4, 2, 2) == 1 - 1 / 6
    assert pass_at_k(10, 0, 5) == 0.0
    assert pass_at_k(10, 6, 5) == 1.0
    assert pass_at_k(2000, 1, 1000) == 0.5  # binomials of 600 digits
    # Control: the biased estimate, 1 - (1 - c/n)^k, is another number.
    assert pass_at_k(4, 2, 2) != 1 - (1 - 2 / 4) ** 2


def test_the_greedy_pass(build: Any) -> None:
    evaluator, engine, _ = build()
    (result,) = evaluator.run()
    assert all(request.greedy and request.seed == 0 and request.max_tokens == 5 for request in engine.requests)
    assert (result.problems, result.samples, result.drawn, result.pass_at) == (4, 0, None, {})
    assert result.greedy.right == 0.25  # "1" is right only for 0+1
    assert (result.greedy.length_mean, result.greedy.truncated_share, result.greedy.errors) == (2.0, 0.0, 0)


def test_metrics_keep_their_keys(build: Any) -> None:
    assert build()[0].metrics("_initial") == {
        "eval/accuracy_initial": 0.25,
        "eval/held_out/accuracy_initial": 0.25,
        "eval/held_out/errors_initial": 0,
        "eval/problems": 4,
    }
    values = {"eval/accuracy": 0.25, "eval/held_out/accuracy": 0.25, "eval/held_out/errors": 0, "eval/problems": 4}
    assert build()[0].metrics() == values
    assert build(names=())[0].metrics() == {}


def test_drawn_responses(build: Any) -> None:
    evaluator, _, _ = build("eval.samples=4", "eval.k=[1,3]", names=("held_out", "other"))
    result, _ = evaluator.run()
    drawn = [r for r in result.responses if r.sample is not None]
    assert len(drawn) == 16
    right = [sum(r.right for r in drawn if r.problem.id == p.id) for p in PROBLEMS]
    assert right[0] == sum(draw_seed(0, "held_out", PROBLEMS[0], sample) % 2 == 0 for sample in range(4))
    assert right[1:] == [0, 0, 0]
    assert result.drawn.right == sum(right) / 16
    assert result.pass_at == {k: sum(pass_at_k(4, c, k) for c in right) / 4 for k in (1, 3)}
    assert result.pass_at[1] == pytest.approx(result.drawn.right)
    assert result.drawn.truncated_share == sum(r.rollout.finish_reason is FinishReason.length for r in drawn) / 16
    values = evaluator.metrics()
    keys = {
        f"eval/{name}/{key}"
        for name in ("held_out", "other")
        for key in ("accuracy", "errors", "mean@4", "pass@1", "pass@3")
    }
    assert values.keys() == keys | {"eval/accuracy", "eval/problems"}
    assert values["eval/problems"] == 8


def test_seeds_are_stateless(build: Any) -> None:
    seeds = [[r.seed for r in engine.requests if not r.greedy] for _, engine in _twice(build)]
    assert seeds[0] == seeds[1]
    assert len(set(seeds[0])) == len(seeds[0]) == 16
    assert all(0 <= seed < 2**63 for seed in seeds[0])
    problem = PROBLEMS[0]
    assert len({draw_seed(0, "a", problem, 0), draw_seed(1, "a", problem, 0), draw_seed(0, "b", problem, 0)}) == 3


def _twice(build: Any) -> list[tuple[Evaluator, FakeEngine]]:
    made = [build("eval.samples=2", names=("held_out", "other"))[:2] for _ in range(2)]
    for evaluator, _ in made:
        evaluator.run()
    return made


def test_errors_of_the_scorer_are_counted(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("failing_reward")
    vars(module)["f"] = lambda completion, problem: 1 / (len(completion) - 1)
    monkeypatch.setitem(sys.modules, "failing_reward", module)
    evaluator, _, _ = build("reward=function", "reward.function=failing_reward:f", "eval.samples=4")
    (result,) = evaluator.run()
    assert result.greedy.errors == 4  # "1" has one character, "22222" more
    assert result.greedy.right == 0.0
    assert 0 < result.drawn.errors < 16
    assert result.metrics()["eval/held_out/errors"] == 4 + result.drawn.errors
    assert result.drawn.reward_mean == pytest.approx(1 / 4)  # the mean over responses that have a reward
    assert result.greedy.reward_mean == 0.0
    assert {r.score.reward for r in result.responses if r.score.error} == {None}


class Calls(FakeEngine):
    """Asks the calculator for half of the problems, then repeats what it said."""

    def _rollout(self, request: RolloutRequest) -> Rollout:
        calls = request.prompt[0] % 2 == 1 and CALL_END not in request.prompt
        said = request.prompt[request.prompt.index(CALL_END) + 1 :] if CALL_END in request.prompt else [ONE]
        response = [CALL_BEGIN, *request.prompt[:-1], CALL_END] if calls else [*said, EOS]
        tokens = torch.tensor(request.prompt + response)
        return Rollout(
            tokens=tokens,
            sampled=torch.arange(len(tokens)) >= len(request.prompt),
            logprobs=torch.zeros(len(tokens)),
            weight_version=torch.zeros(len(tokens), dtype=torch.int32),
            seed=request.seed,
            finish_reason=FinishReason.stop,
        )


def test_conversations_are_evaluated(tmp_path: Path) -> None:
    build_char_tokenizer(tmp_path / "tokenizer", "1234567890+=", ["<<", ">>"])
    tokenizer = load_tokenizer(str(tmp_path / "tokenizer"))
    assert tokenizer("<<>>").input_ids == [CALL_BEGIN, CALL_END]
    config = compose_train(["reward=exact", "environment=calculator", "environment.call_end='>>'", "eval.samples=1"])
    codec = TextCodec(tokenizer, config.data, environment=config.environment)
    scorer = Scorer(config.reward, source=None)  # type: ignore[arg-type]
    evaluator = Evaluator(config, Calls(), [EvalSet(name="held_out", problems=PROBLEMS, codec=codec, scorer=scorer)])
    results = evaluator.run()
    called = [r for r in results[0].responses if len(r.episode.turns) == 3]
    assert len(called) == 4  # two problems, greedily and drawn
    assert all(r.right and r.episode.turns[:1] == [f"<<{r.problem.prompt[:-1]}>>"] for r in called)
    assert results[0].greedy.right == 0.75  # a greedy "1" is also right for 0+1
    write(tmp_path / "out", config, "the/model", results)
    rows = [json.loads(line) for line in (tmp_path / "out/samples.jsonl").read_text().splitlines()]
    (row,) = (row for row in rows if row["problem"] == "1" and row["sample"] is None)
    assert (row["turns"], row["response"], row["reward"]) == (["<<1+1>>", "2", "2"], "2", 1.0)


def test_a_weighted_sum_may_round(build: Any) -> None:
    (result,) = build()[0].run()
    (response, *_) = result.responses
    for reward, right in ((0.7 + 0.2 + 0.1, True), (1.5, True), (0.999, False)):
        assert replace(response, score=Score(reward=reward)).right is right
    assert 0.7 + 0.2 + 0.1 < 1.0  # the control


def test_what_is_written(build: Any, tmp_path: Path) -> None:
    evaluator, _, config = build("eval.samples=2", "eval.k=[1,2]")
    results = evaluator.run()
    write(tmp_path / "out", config, "the/model", results)
    report = json.loads((tmp_path / "out/eval.json").read_text())
    assert (report["model"], report["seed"], report["temperature"]) == ("the/model", 0, 1.0)
    held_out = report["sets"]["held_out"]
    assert {"problems", "samples", "accuracy", "mean@2", "pass@1", "pass@2", "greedy", "drawn"} == held_out.keys()
    assert held_out["greedy"].keys() == {"reward_mean", "length_mean", "truncated_share", "errors"}
    rows = [json.loads(line) for line in (tmp_path / "out/samples.jsonl").read_text().splitlines()]
    assert [row["sample"] for row in rows] == [None] * 4 + [0, 1] * 4
    assert rows[0]["response"] == "1"
    assert rows[0]["reward"] == 1.0
    assert math.isclose(sum(row["reward"] for row in rows[:4]) / 4, held_out["accuracy"])
    assert "samples: 2" in (tmp_path / "out/eval.yaml").read_text()
