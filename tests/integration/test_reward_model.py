"""A run whose rewards are a classifier's, in a process of its own that ends with the run."""

import json

import pytest
import torch
from transformers import AutoModelForSequenceClassification, Qwen3Config

from rlsync.config.reward import RewardConfig, RewardKind
from rlsync.data.char_tokenizer import build_char_tokenizer
from rlsync.rewards.reward_model import RewardModel


@pytest.fixture
def classifier(tmp_path):
    folder = tmp_path / "classifier"
    config = Qwen3Config(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=16,
        intermediate_size=32, num_labels=1, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    build_char_tokenizer(folder, "0123456789+-=~ ")
    return str(folder)


def test_rewards_are_the_classifier_s(launcher, classifier, leaves_nothing):
    run = launcher.run(
        "reward=model", f"reward.model_path={classifier}", "trainer.steps=2", "rollout.tp=1", "eval.problems=0"
    )
    assert run.code == 0, run.out + run.err
    assert all(row["parity/tokens_different"] == 0 < row["parity/tokens_compared"] for row in run.metrics)
    assert all(row["reward/errors"] == 0 < row["reward/std"] for row in run.metrics)
    rows = [json.loads(line) for line in (run.folder / "rollouts.jsonl").read_text().splitlines()]
    model = RewardModel(RewardConfig(kind=RewardKind.model, model_path=classifier), "cpu")
    expected = model.score([row["prompt"] for row in rows], [row["response"] for row in rows])
    assert [row["reward"] for row in rows] == pytest.approx(expected.rewards, abs=1e-5)
    wrong = model.score([row["prompt"] for row in rows], ["7" + row["response"] for row in rows])  # the control
    assert [row["reward"] for row in rows] != pytest.approx(wrong.rewards, abs=1e-5)
