"""A tiny sequence classifier as the reward: its logits do not depend on the batch, and unfit models are refused."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Qwen3Config

from rlsync.config.compose import compose_train
from rlsync.config.reward import RewardConfig, RewardKind
from rlsync.data.char_tokenizer import build_char_tokenizer
from rlsync.data.problem import Problem
from rlsync.errors import ConfigError
from rlsync.rewards.model_reward import ModelReward
from rlsync.rewards.reward_model import RewardModel
from rlsync.rewards.scorer import Scorer


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    def build(labels=1, template=None):
        folder = tmp_path_factory.mktemp("classifier")
        config = Qwen3Config(
            vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
            head_dim=16, intermediate_size=32, num_labels=labels, pad_token_id=0,
        )  # fmt: skip
        torch.manual_seed(0)
        AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
        build_char_tokenizer(folder, "0123456789+=abcdef u")
        if template:
            tokenizer = AutoTokenizer.from_pretrained(folder)
            tokenizer.chat_template = template
            tokenizer.save_pretrained(folder)
        return str(folder)

    return build


def _config(path, **settings):
    return RewardConfig(kind=RewardKind.model, model_path=path, **settings)


def test_the_reward_is_the_logit_of_the_last_token(classifier):
    path = classifier()
    model = RewardModel(_config(path), "cpu")
    prompts, completions = ["1+1=", "1+12=", "9="], ["2", "13", "9abc"]
    scores = model.score(prompts, completions)
    assert scores.truncated == 0
    stock = AutoModelForSequenceClassification.from_pretrained(path).eval()
    tokenizer = AutoTokenizer.from_pretrained(path)
    for text, reward in zip(map("".join, zip(prompts, completions, strict=True)), scores.rewards, strict=True):
        ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
        with torch.no_grad():
            assert reward == pytest.approx(float(stock(input_ids=ids).logits), abs=1e-5)
    assert len({round(reward, 4) for reward in scores.rewards}) == 3  # the control: texts differ
    assert model.score(prompts, completions) == scores


def test_a_long_text_loses_its_beginning(classifier):
    path = classifier()
    short = RewardModel(_config(path, model_max_tokens=3), "cpu").score(["12345="], ["67"])
    assert short.truncated == 1
    whole = RewardModel(_config(path), "cpu")
    assert short.rewards == pytest.approx(whole.score(["="], ["67"]).rewards, abs=1e-5)
    assert short.rewards != pytest.approx(whole.score(["12345="], ["67"]).rewards, abs=1e-5)


def test_a_chat_template_is_used(classifier):
    template = "{% for m in messages %}{{ m.role[0] }}{{ m.content }}{% endfor %}"
    scores = RewardModel(_config(classifier(template=template)), "cpu").score(["1"], ["2"])
    plain = RewardModel(_config(classifier()), "cpu").score(["u1a2"], [""])
    assert scores.rewards == pytest.approx(plain.rewards, abs=1e-5)


@pytest.mark.parametrize(("labels", "expected"), [(2, "2 labels"), (None, "no model with a tokenizer")])
def test_what_is_no_reward_model_is_refused_before_anything_starts(classifier, tmp_path, labels, expected):
    path = classifier(labels) if labels else str(tmp_path)
    with pytest.raises(ConfigError, match=expected):
        ModelReward(_config(path))


def test_the_scorer_asks_it_in_batches(classifier):
    config = _config(classifier(), batch_size=2)
    scorer = Scorer(config, None)
    (reward,) = scorer.models
    model, sizes = RewardModel(config, "cpu"), []

    def score(prompts, completions):
        sizes.append(len(prompts))
        return model.score(prompts, completions)

    reward.connect(score)
    problems = [Problem(id=str(i), prompt=f"{i}=", answer="") for i in range(5)]
    scores = scorer.score(problems, list("12345"))
    assert sorted(sizes) == [1, 2, 2]
    assert [s.reward for s in scores] == pytest.approx(
        model.score([p.prompt for p in problems], list("12345")).rewards, abs=1e-5
    )


def test_gpus_of_models_that_several_parts_name():
    parts = ("a", "b")
    overrides = [f"+reward@reward.parts.{name}=model" for name in parts]
    overrides += [f"reward.parts.{name}.{field}" for name in parts for field in ("model_path=x", "model_gpus=0.5")]
    assert compose_train(overrides).reward.gpu_shares == [0.5]
