"""All that reads a model from the hub reads it at model.revision; without a network."""

from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Qwen3Config,
)

from rlsync.config.compose import compose_train
from rlsync.config.kernels import KernelMode
from rlsync.data.text import load_tokenizer
from rlsync.errors import ConfigError
from rlsync.models.load import load_critic, load_model

HUB_ID = "owner/name"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    """Class, path and revision of each load."""
    calls: list[tuple[str, str, str]] = []
    critic = torch.nn.Module()
    critic.config = Qwen3Config()
    answers = {
        AutoConfig: Qwen3Config(architectures=["Qwen3ForCausalLM"]),
        AutoModelForCausalLM: torch.nn.Module(),
        AutoModelForSequenceClassification: (critic, {"missing_keys": []}),
        AutoTokenizer: None,
    }

    def loader(auto: type, answer: object) -> Any:
        def from_pretrained(path: str, *, revision: str, **_: object) -> object:
            calls.append((auto.__name__, path, revision))
            return answer

        return from_pretrained

    for auto, answer in answers.items():
        monkeypatch.setattr(auto, "from_pretrained", loader(auto, answer))
    return calls


def test_the_revision_reaches_every_load(asked: list[tuple[str, str, str]]) -> None:
    load_model(HUB_ID, KernelMode.invariant, "v2")
    load_critic(HUB_ID, KernelMode.invariant, "v2")
    load_tokenizer(HUB_ID, "v2")
    classes = [
        "AutoConfig",
        "AutoModelForCausalLM",
        "AutoConfig",
        "AutoModelForSequenceClassification",
        "AutoTokenizer",
    ]
    assert asked == [(name, HUB_ID, "v2") for name in classes]
    asked.clear()
    load_tokenizer(HUB_ID)  # the control
    assert asked == [("AutoTokenizer", HUB_ID, "main")]


def test_the_revision_is_of_the_policy_s_model_alone() -> None:
    model = compose_train([f"model.path={HUB_ID}", "model.revision=v2"]).model
    assert model.revision_of(HUB_ID) == "v2"
    assert model.revision_of("owner/reward") == "main"


def test_a_revision_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def from_pretrained(path: str, *, revision: str, **_: object) -> None:
        raise OSError(f"{revision} is not a valid git identifier")

    monkeypatch.setattr(AutoConfig, "from_pretrained", from_pretrained)
    with pytest.raises(ConfigError, match=rf"model\.path={HUB_ID}.* at model\.revision=v2 \(v2 is not"):
        load_model(HUB_ID, KernelMode.invariant, "v2")
    with pytest.raises(ConfigError, match=r"as a hub id \(main is not"):
        load_model(HUB_ID, KernelMode.invariant)
