"""The code of docs/extending.md does what the page says."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch

from rlsync.config.algorithm import AlgorithmConfig
from rlsync.config.compose import compose_train
from rlsync.config.data import DataConfig, DataSource
from rlsync.config.reward import RewardConfig, RewardKind
from rlsync.data.char_tokenizer import build_char_tokenizer
from rlsync.data.open_source import open_source
from rlsync.data.problem import Problem, Split
from rlsync.data.text import TextCodec, load_tokenizer
from rlsync.environments.conversation import Start
from rlsync.environments.conversation_player import ConversationPlayer
from rlsync.rewards.scorer import Scorer
from rlsync.samples import FinishReason, Rollout, TrainSample
from rlsync.trainer.packing import pack_samples

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text()
REWARD, ASYNC_REWARD, BATCHED_REWARD, ENVIRONMENT, LOSS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
(ROW,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def rewards_of(tmp_path, monkeypatch):
    def rewards(code, name, completions, **settings):
        (tmp_path / "my_rewards.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "my_rewards", raising=False)
        config = RewardConfig(kind=RewardKind.function, function=f"my_rewards:{name}", **settings)
        problem = Problem(id="0", prompt="6*7=", answer="42")
        scorer = Scorer(config, open_source(DataConfig()))
        return [score.reward for score in scorer.score([problem] * len(completions), completions)]

    return rewards


def test_a_reward(rewards_of):
    assert rewards_of(REWARD, "right_and_short", ["42", "42   ", "41"]) == pytest.approx([1.0, 0.97, 0.0])


def test_an_async_reward(rewards_of):
    assert rewards_of(ASYNC_REWARD, "asked", ["42", "41"], timeout_s=30.0) == [1.0, 0.0]


def test_a_batched_reward(rewards_of):
    assert rewards_of(BATCHED_REWARD, "rare", ["42", "41", "42"], batched=True) == pytest.approx([0.5, 0.0, 0.5])


def test_an_environment(tmp_path):
    """A model that halves the interval finds the number; one that writes no number costs its conversation alone."""
    build_char_tokenizer(tmp_path, "".join(map(chr, range(32, 127))))
    (tmp_path / "my_environment.py").write_text(ENVIRONMENT)
    config = compose_train(
        ["environment=custom", f"environment.path={tmp_path}/my_environment.py:HigherOrLower",
         "environment.max_turns=8",
         "rollout.max_tokens=64", "rollout.max_model_len=256", "environment.template=' {message}? '"]
    )  # fmt: skip
    codec = TextCodec(load_tokenizer(str(tmp_path)), config.data, environment=config.environment)

    class Halves:
        def generate(self, requests):
            return [(index, self.answer(request)) for index, request in enumerate(requests)]

        def answer(self, request):
            low, high, said = 0, 128, codec.decode(request.prompt)
            for word in re.findall(r"higher(?=\?)|lower(?=\?)", said):
                low, high = ((low + high) // 2, high) if word == "higher" else (low, (low + high) // 2)
            text = str((low + high) // 2) if request.seed == 0 else "what?"
            ids = codec.encode(Problem(id="", prompt=text, answer="")) + codec.stop_ids
            n = len(request.prompt)
            sampled = torch.arange(n + len(ids)) >= n
            return Rollout(
                tokens=torch.tensor(request.prompt + ids), sampled=sampled, logprobs=torch.zeros(len(sampled)),
                weight_version=torch.zeros(len(sampled), dtype=torch.int32), seed=request.seed,
                finish_reason=FinishReason.stop,
            )  # fmt: skip

    problem = Problem(id="0", prompt="Guess a number from 0 to 127.", answer="42")
    starts = [Start(problem=problem, seed=seed) for seed in (0, 1)]
    found, failed = ConversationPlayer(config.environment, config.rollout, Halves()).play(starts, codec)
    assert found.turns == ["64", "lower", "32", "higher", "48", "lower", "40", "higher", "44", "lower", "42"]
    assert (found.scored, found.rollout.finish_reason) == ("42", FinishReason.stop)
    opening = codec.decode(found.rollout.tokens[: found.rollout.prompt_length].tolist())
    assert opening == "Guess a number from 0 to 127. I say whether it is higher or lower."
    assert "ValueError: invalid literal for int()" in failed.error


def test_a_data_set(tmp_path):
    rows = [json.loads(ROW) | {"text": f"{i} * 7"} for i in range(40)]
    path = tmp_path / "problems.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    source = open_source(
        DataConfig(
            source=DataSource.file, path=str(path), prompt_column="text", answer_column="solution.value",
            template="Compute {question}.", warm_start_percent=0,
        )
    )  # fmt: skip
    problem = source.problems(Split.train, 1, 0)[0]
    assert re.fullmatch(r"Compute \d+ \* 7\.", problem.prompt)
    assert problem.answer == "42"


def test_a_loss():
    members: dict = {}
    exec(LOSS, members)
    sampled = torch.tensor([False, True, True, True])
    rollout = Rollout(
        tokens=torch.tensor([1, 2, 3, 4]), sampled=sampled, logprobs=torch.zeros(4),
        weight_version=torch.zeros(4, dtype=torch.int32), seed=0, finish_reason=FinishReason.stop,
    )  # fmt: skip
    pack = pack_samples([TrainSample(rollout=rollout, advantage=torch.full((4,), 2.0))], [0])
    pack.mask[2] = False
    logprobs = torch.tensor([-0.5, -0.25, -9.0], requires_grad=True)
    loss = members["reinforce"](logprobs, torch.zeros(3), pack, AlgorithmConfig())
    loss.per_token.sum().backward()
    assert torch.equal(logprobs.grad, torch.tensor([-2.0, -2.0, 0.0]))
