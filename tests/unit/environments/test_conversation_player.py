"""Conversations with a fake engine: ids are kept as sampled, limits hold, and an environment that fails is counted."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from rlsync.config.compose import compose_train
from rlsync.controller.collect import Batch, Group
from rlsync.controller.metrics import episode_metrics
from rlsync.data.problem import Problem
from rlsync.data.text import TextCodec
from rlsync.environments.base import Environment, Observation
from rlsync.environments.conversation import Start
from rlsync.environments.conversation_player import ConversationPlayer
from rlsync.errors import ConfigError, EnvironmentFailedError
from rlsync.rewards.scoring import Scoring
from rlsync.rewards.weighted import ScoringRequest
from rlsync.samples import Episode, FinishReason, Rollout, RolloutRequest, Sample, Score
from rlsync.telemetry.run_folder import RunFolder, hex_bits

VOCABULARY = {token: i for i, token in enumerate(["<pad>", "<eos>", "<unk>", *"0123456789ab?!", "12", "ab"])}
EOS, TWELVE, AB = VOCABULARY["<eos>"], VOCABULARY["12"], VOCABULARY["ab"]
PROBLEM = Problem(id="p", prompt="7?", answer="9")


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerBase:
    """One token per character, and two that no text encodes to: decoding and encoding turns `12` into `1`, `2`."""
    backend = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


class FakeEngine:
    """Each turn is the next one of its seed's script; log-probs and versions identify turn and token."""

    def __init__(self, scripts: dict[int, list[list[int]]]) -> None:
        self.scripts = {seed: list(turns) for seed, turns in scripts.items()}
        self.rounds: list[list[RolloutRequest]] = []

    def generate(self, requests: list[RolloutRequest]) -> Iterator[tuple[int, Rollout]]:
        self.rounds.append(requests)
        for index, request in reversed(list(enumerate(requests))):
            yield index, self._rollout(request)

    def _rollout(self, request: RolloutRequest) -> Rollout:
        whole = self.scripts[request.seed].pop(0)
        stop = next((i for i, token in enumerate(whole) if token in request.stop_ids), len(whole))
        response = whole[: min(stop + 1, request.max_tokens)]
        n, turn = len(request.prompt), len(self.rounds)
        sampled = torch.arange(n + len(response)) >= n
        return Rollout(
            tokens=torch.tensor(request.prompt + response), sampled=sampled, seed=request.seed,
            logprobs=torch.where(sampled, -turn - torch.arange(len(sampled)) / 256, 0.0),
            weight_version=torch.where(sampled, turn, -1).to(torch.int32),
            finish_reason=FinishReason.stop if stop < len(response) else FinishReason.length,
        )  # fmt: skip


class Echo(Environment):
    """Answers `a?` and the like with `b12` until a turn ends in `!`."""

    def step(self, action: str) -> Observation | None:
        return None if action.endswith("!") else Observation(text="b12")


@pytest.fixture
def play(tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(
        scripts: dict[int, list[list[int]]], *overrides: str, environment: type[Environment] = Echo
    ) -> tuple[list[Episode], FakeEngine]:
        module = types.ModuleType("their_environment")
        vars(module)["Theirs"] = environment
        monkeypatch.setitem(sys.modules, "their_environment", module)
        config = compose_train(
            ["environment=custom", "environment.path=their_environment:Theirs", "rollout.max_tokens=20",
             "rollout.max_model_len=64", "data.max_prompt_tokens=8", *overrides]
        )  # fmt: skip
        codec = TextCodec(tokenizer, config.data, environment=config.environment)
        engine = FakeEngine(scripts)
        return ConversationPlayer(config.environment, config.rollout, engine).play(
            [Start(problem=PROBLEM, seed=seed) for seed in scripts], codec
        ), engine

    return run


def ids(text: str) -> list[int]:
    return [VOCABULARY[c] for c in text]


MODEL_1, MODEL_2 = [AB, TWELVE, *ids("?"), EOS], [TWELVE, *ids("!"), EOS]


def test_tokens_are_those_sent_and_sampled(play: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    (episode,), engine = play({5: [MODEL_1, MODEL_2]})
    rollout, message = episode.rollout, ids("b12")
    assert rollout.tokens.tolist() == ids("7?") + MODEL_1 + message + MODEL_2
    own = [False] * 2 + [True] * 4 + [False] * 3 + [True] * 3
    assert rollout.sampled.tolist() == own
    assert rollout.tokens.dtype == torch.int64
    # A request has all earlier tokens, and the sampled tokens follow them.
    first, second = (requests[0] for requests in engine.rounds)
    assert first.prompt == ids("7?")
    assert second.prompt == first.prompt + MODEL_1 + message
    assert rollout.tokens.tolist() == second.prompt + MODEL_2
    assert first.seed == second.seed == rollout.seed == 5
    assert (first.max_tokens, second.max_tokens) == (20, 16)
    # Each token has the log-prob and the version of the turn that sampled it.
    position = torch.arange(12) / 256
    assert torch.equal(rollout.logprobs[2:6], (-1 - position[2:6]))
    assert torch.equal(rollout.logprobs[9:], (-2 - position[9:]))
    assert rollout.weight_version.tolist() == [-1, -1, 1, 1, 1, 1, -1, -1, -1, 2, 2, 2]
    assert not rollout.logprobs[~rollout.sampled].any()
    assert (episode.turns, episode.scored) == (["ab12?", "b12", "12!"], "12!")
    assert (episode.model_turns, episode.tool_calls, episode.error) == (2, 1, None)
    assert rollout.finish_reason is FinishReason.stop


def test_control_retokenising_would_change_what_was_sampled(play: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    (episode,), engine = play({5: [MODEL_1, MODEL_2]})
    text = tokenizer.decode(MODEL_1)
    again = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert text == tokenizer.decode(again)  # the same text,
    assert again != MODEL_1  # other tokens:
    assert episode.rollout.tokens.tolist() != ids("7?") + again + ids("b12") + MODEL_2
    assert engine.rounds[1][0].prompt != ids("7?") + again + ids("b12")


def test_the_model_never_trains_on_the_environments_tokens(play: Any) -> None:
    (episode,), _ = play({5: [MODEL_1, MODEL_2]})
    assert episode.rollout.response == MODEL_1 + MODEL_2
    assert episode.rollout.num_sampled == 7
    assert episode.rollout.prompt_length == 2


def test_conversations_advance_together(play: Any) -> None:
    turn, end = [*ids("a?"), EOS], [*ids("1!"), EOS]
    episodes, engine = play({1: [end], 2: [turn, end], 3: [turn, turn, end]})
    assert [[r.seed for r in requests] for requests in engine.rounds] == [[1, 2, 3], [2, 3], [3]]
    assert [e.model_turns for e in episodes] == [1, 2, 3]
    assert [e.tool_calls for e in episodes] == [0, 1, 2]
    samples = _samples(episodes)
    assert episode_metrics(samples, samples) == {
        "rollout/turns_mean": 2.0, "rollout/tool_calls_mean": 1.0, "environment/errors": 0,
    }  # fmt: skip


def _samples(episodes: list[Episode], scores: list[Score] | None = None) -> list[Sample]:
    scores = scores or [Score(reward=1.0)] * len(episodes)
    return [Sample(problem=PROBLEM, episode=e, score=s) for e, s in zip(episodes, scores, strict=True)]


TALK = [[*ids("a?"), EOS]] * 9


@pytest.mark.parametrize(
    ("overrides", "turns", "reason"),
    [
        (["environment.max_turns=1"], 1, FinishReason.turns),
        (["environment.max_turns=3"], 3, FinishReason.turns),
        (["rollout.max_tokens=6"], 2, FinishReason.length),  # two turns of three tokens reach the limit
        (["rollout.max_tokens=7"], 3, FinishReason.length),  # the third is cut after one token
        (["rollout.max_model_len=17", "rollout.max_tokens=9"], 3, FinishReason.length),  # 2 + 3 + 3 + 3 + 3 + 3 of 17
        (["rollout.max_model_len=18", "rollout.max_tokens=10"], 3, FinishReason.length),
    ],
)
def test_limits(play: Any, overrides: list[str], turns: int, reason: FinishReason) -> None:
    (episode,), engine = play({5: TALK}, *overrides)
    assert (episode.model_turns, episode.rollout.finish_reason, episode.error) == (turns, reason, None)
    assert episode.rollout.sampled[-1]  # a last message that no turn answered is left out
    limits = {k: int(v) for k, v in (o.removeprefix("rollout.").split("=") for o in overrides if "rollout" in o)}
    assert episode.rollout.num_sampled <= limits.get("max_tokens", 20)
    assert episode.rollout.tokens.numel() <= limits.get("max_model_len", 64)
    assert all(len(r.prompt) + r.max_tokens <= limits.get("max_model_len", 64) for each in engine.rounds for r in each)


def test_a_turn_that_is_cut_ends_the_conversation(play: Any) -> None:
    (episode,), engine = play({5: [ids("a") * 30, MODEL_2]})
    assert (len(engine.rounds), episode.rollout.finish_reason) == (1, FinishReason.length)


class Raises(Environment):
    def step(self, action: str) -> Observation | None:
        if "b" in action:
            sys.exit("no more")  # not even an Exception
        return Echo().step(action)


def test_a_tool_that_raises_costs_its_conversation(play: Any, caplog: pytest.LogCaptureFixture) -> None:
    episodes, _ = play({1: [[*ids("b?"), EOS]], 2: [[*ids("a?"), EOS], MODEL_2]}, environment=Raises)
    failed, whole = episodes
    assert failed.rollout.finish_reason is FinishReason.error
    assert "SystemExit: no more (step after ['b?'], problem p)" in str(failed.error)
    assert "SystemExit: no more" in caplog.text
    assert whole.error is None
    assert whole.rollout.finish_reason is FinishReason.stop
    assert episode_metrics(_samples(episodes), _samples(episodes))["environment/errors"] == 1

    class OnlyTheWhole:
        name, weight, threads, batch_size = "fake", 1.0, 1, 2

        def score(self, samples: list[ScoringRequest]) -> list[Score]:
            assert [sample.completion for sample in samples] == ["12!"]
            return [Score(reward=1.0)]

    with Scoring([OnlyTheWhole()], [PROBLEM] * 2, sums=False) as scoring:
        for index, episode in enumerate(episodes):
            scoring.take(index, episode)
        scores = scoring.finish()
    assert scores == [Score(reward=None, error=failed.error), Score(reward=1.0)]


def test_a_failure_of_the_environment_is_no_wrong_answer(play: Any) -> None:
    """A failed conversation has no reward, and does not count for its group's signal."""
    turn = [*ids("a?"), EOS]
    scripts = {1: [[*ids("b?"), EOS]], 2: [turn, MODEL_2], 3: [turn, MODEL_2], 4: [turn, MODEL_2]}
    episodes, _ = play(scripts, environment=Raises)
    error = Score(reward=None, error="x")
    for rewards in ((1.0, 0.0, 0.5), (0.1, 0.1, 0.1), (1.0, 1.0, 1.0)):
        group = Group(samples=_samples(episodes, [error, *(Score(reward=r) for r in rewards)]))
        row = Batch(groups=[group], drawn=[group]).rewards[0]
        assert row.isnan().tolist() == [True, False, False, False]
        assert row[1:].tolist() == list(rewards)
        assert group.has_signal == (len(set(rewards)) > 1)
    wrong = Group(samples=_samples(episodes, [Score(reward=0.0), *(Score(reward=1.0),) * 3]))
    assert wrong.has_signal  # the control: a wrong answer is a signal


def test_a_tool_that_hangs_is_given_up(play: Any) -> None:
    release = threading.Event()

    class Hangs(Environment):
        def step(self, action: str) -> Observation | None:
            if "b" in action:
                release.wait(60)
            return Echo().step(action)

    started = time.monotonic()
    try:
        episodes, _ = play(
            {1: [[*ids("b?"), EOS]], 2: [[*ids("a?"), EOS], MODEL_2]}, "environment.timeout_s=0.2", environment=Hangs
        )
        assert time.monotonic() - started < 10
        assert "TimeoutError: took longer than environment.timeout_s=0.2" in str(episodes[0].error)
        assert episodes[1].turns == ["a?", "b12", "12!"]
    finally:
        release.set()


def test_a_reset_that_fails_or_says_too_much(play: Any) -> None:
    class Openings(Environment):
        made = 0

        def __init__(self) -> None:
            self.number = Openings.made
            Openings.made += 1

        def reset(self, problem: Problem) -> Any:
            odd = [problem.prompt + "!", "7" * 64, 12, "\ud83d", 1 // max(0, 4 - self.number)]
            return odd[self.number]

        def step(self, action: str) -> Observation | None:
            return None

    episodes, engine = play({seed: [MODEL_2] for seed in range(5)}, "environment.parallel=1", environment=Openings)
    assert [request.prompt for request in engine.rounds[0]] == [ids("7?!"), *[ids("7?")] * 4]
    assert episodes[0].error is None
    errors = ["64 tokens leave no room", "TypeError: it returned 12, but must return a text", "UnicodeEncodeError"]
    errors.append("ZeroDivisionError")
    for episode, words in zip(episodes[1:], errors, strict=True):
        assert words in str(episode.error)
        assert episode.rollout.finish_reason is FinishReason.error
        assert episode.rollout.response == MODEL_2  # every rollout has a sampled token


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        (Observation(text="b12", tool_calls=None), "TypeError: it returned .*tool_calls must be an integer"),  # type: ignore[arg-type]
        (Observation(text="\ud83d"), "UnicodeEncodeError: .*surrogates not allowed"),
    ],
)
def test_an_observation_that_cannot_be_taken_costs_its_conversation(
    play: Any, observation: Observation, message: str
) -> None:
    class Odd(Environment):
        def step(self, action: str) -> Observation | None:
            return observation if "b" in action else Echo().step(action)

    failed, whole = play({1: [[*ids("b?"), EOS]], 2: [[*ids("a?"), EOS], MODEL_2]}, environment=Odd)[0]
    assert re.search(message, str(failed.error))
    assert (whole.error, whole.tool_calls) == (None, 1)


def test_an_environment_that_always_fails_ends_the_run(play: Any) -> None:
    class Never(Environment):
        def step(self, action: str) -> Any:
            return "text"

    with pytest.raises(
        EnvironmentFailedError, match=r"in all 2 conversations.*TypeError: it returned 'text', but must return an"
    ):
        play({1: [MODEL_1], 2: [MODEL_1]}, environment=Never)


def test_each_conversation_has_its_own_environment(play: Any) -> None:
    class Counts(Environment):
        def __init__(self, last: int) -> None:
            self.last, self.seen = last, 0

        def step(self, action: str) -> Observation | None:
            self.seen += 1
            return None if self.seen == self.last else Observation(text=str(self.seen), tool_calls=0)

    episodes, _ = play({1: TALK, 2: TALK}, "+environment.args.last=3", environment=Counts)
    assert [e.turns for e in episodes] == [["a?", "1", "a?", "2", "a?"]] * 2
    assert [e.tool_calls for e in episodes] == [0, 0]


def test_without_an_environment_nothing_is_added(play: Any) -> None:
    (episode,), engine = play({5: [MODEL_1]}, "environment=none", "environment.path=")
    assert len(engine.rounds) == 1
    assert episode.rollout.tokens.tolist() == ids("7?") + MODEL_1
    assert (episode.turns, episode.scored, episode.model_turns) == (["ab12?"], "ab12?", 1)


def test_what_is_scored_and_written(play: Any, tmp_path: Path) -> None:
    (episode,), _ = play({5: [MODEL_1, MODEL_2]}, "environment.scored=conversation")
    assert episode.scored == "ab12?b1212!"
    folder = RunFolder(tmp_path, "")
    folder.write_rollouts(1, _samples([episode]))
    row = json.loads((tmp_path / "rollouts.jsonl").read_text())
    assert row["turns"] == ["ab12?", "b12", "12!"]
    assert row["prompt_tokens"] + row["response_tokens"] == episode.rollout.tokens.tolist()
    assert len(row["logprob_bits"]) == len(row["response_tokens"])
    assert [bits for bits in row["logprob_bits"] if bits] == hex_bits(episode.rollout.logprobs[episode.rollout.sampled])
    assert [i for i, bits in enumerate(row["logprob_bits"]) if bits is None] == [4, 5, 6]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["environment.path=math:pi"], "is float, not callable; it must be a class derived from"),
        (["environment.path=math:sqrt"], "it must be a class derived from rlsync.environments.base.Environment"),
        (["environment.path=absent.py:A"], r"environment\.path='absent\.py:A': importing absent\.py failed"),
        (["environment.path="], r"environment\.path is empty"),
        (["environment.kind=calculator"], r"environment\.path=their.*no effect with environment\.kind=calculator"),
        (["environment.max_turns=0"], r"environment\.max_turns=0"),
        (["environment.template=x"], r"environment\.template='x': must contain \{message\} exactly once"),
    ],
)
def test_mistakes(play: Any, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        play({1: [MODEL_1]}, *overrides)


class Limited(Environment):
    def __init__(self, limit: int) -> None:
        self.limit = limit

    def step(self, action: str) -> Observation | None:
        return None


class Abstract(Environment):
    pass


@pytest.mark.parametrize(
    ("environment", "overrides", "message"),
    [
        (Limited, [], r"with environment\.args=\{\}: missing a required argument: 'limit'; it takes \(limit: 'int'\)"),
        (Limited, ["+environment.args.limt=3"], r"environment\.args=\{'limt': 3\}: "),
        (Echo, ["+environment.args.limit=3"], r"got an unexpected keyword argument 'limit'; it takes \(\)"),
        (Abstract, [], r"environment\.path='their_environment:Theirs' is abstract: it lacks step"),
    ],
)
def test_a_class_that_cannot_be_made_is_named_before_anything_starts(
    play: Any, environment: type[Environment], overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        play({1: [MODEL_1]}, *overrides, environment=environment)
    assert play({1: [MODEL_1]}, "+environment.args.limit=3", environment=Limited)[0][0].error is None  # the control


def test_a_class_of_a_file(tmp_path: Path, play: Any) -> None:
    (tmp_path / "mine.py").write_text(
        "from rlsync.environments.base import Environment\nclass Mine(Environment):\n    def step(self, action): pass\n"
    )
    (episode,), _ = play({1: [MODEL_1]}, f"environment.path={tmp_path}/mine.py:Mine")
    assert episode.rollout.finish_reason is FinishReason.stop
