"""The text around an environment's message, with and without chat templates, and templates that cannot be extended."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from rlsync.config.data import DataConfig
from rlsync.config.environment import EnvironmentConfig, EnvironmentKind, MessageRole
from rlsync.data.char_tokenizer import build_char_tokenizer
from rlsync.data.problem import Problem
from rlsync.data.text import TextCodec, load_tokenizer
from rlsync.errors import ConfigError

PROBLEM = Problem(id="0", prompt="hi", answer="")
TOOLS = EnvironmentConfig(kind=EnvironmentKind.calculator)

CHATML = (
    "{% for m in messages %}[{{ m.role }}|"
    "{% if m.role == 'tool' %}<tool>{{ m.content }}</tool>{% else %}{{ m.content }}{% endif %}<eos>\n"
    "{% endfor %}{% if add_generation_prompt %}[assistant|{% endif %}"
)
ONLY_TWO_ROLES = (
    "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tool') }}{% endif %}"
    "{{ m.role }}:{{ m.content }} <eos>{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)
DROPS_OTHER_ROLES = (
    "{% for m in messages %}{% if m.role == 'user' %}U{{ m.content }}{% elif m.role == 'assistant' %}A{{ m.content }}"
    "<eos>{% endif %}{% endfor %}{% if add_generation_prompt %}A{% endif %}"
)
FORGETS_EARLIER_TURNS = (
    "{% for m in messages %}{% if m.role != 'assistant' or loop.revindex <= 2 %}{{ m.content }}<eos>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}a{% endif %}"
)
OPENS_A_THOUGHT = (
    "{% for m in messages %}[{{ m.role }}|{{ m.content }}<eos>{% endfor %}"
    "{% if add_generation_prompt %}[assistant|<think>{% endif %}"
)
NO_END = (
    "{% for m in messages %}{{ m.role }}:{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


@pytest.fixture
def tokenizer(tmp_path: Path) -> PreTrainedTokenizerBase:
    characters = "".join(map(chr, range(32, 127))) + "\n"
    build_char_tokenizer(tmp_path, characters, [">>"])
    return load_tokenizer(str(tmp_path))


def codec_of(
    tokenizer: PreTrainedTokenizerBase, config: EnvironmentConfig = TOOLS, template: str | None = None
) -> TextCodec:
    tokenizer.chat_template = template
    return TextCodec(tokenizer, DataConfig(chat=template is not None), environment=config)


def text(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=False)


def test_a_plain_message(tokenizer: PreTrainedTokenizerBase) -> None:
    codec = codec_of(tokenizer, replace(TOOLS, template="={message};"))
    assert text(tokenizer, codec.encode_message("408", PROBLEM)) == "=408;"
    assert text(tokenizer, codec_of(tokenizer).encode_message("408", PROBLEM)) == "408"


@pytest.mark.parametrize(
    ("template", "role", "piece"),
    [
        (CHATML, MessageRole.tool, "\n[tool|<tool>=408;</tool><eos>\n[assistant|"),
        (CHATML, MessageRole.user, "\n[user|=408;<eos>\n[assistant|"),
        (ONLY_TWO_ROLES, MessageRole.user, "user:=408; <eos>assistant:"),
    ],
)
def test_a_message_in_a_chat(tokenizer: PreTrainedTokenizerBase, template: str, role: MessageRole, piece: str) -> None:
    """Prompt, turn with stop token, and message together equal the template's rendering of the conversation."""
    codec = codec_of(tokenizer, replace(TOOLS, role=role, template="={message};"), template)
    ids = codec.encode_message("408", PROBLEM)
    assert text(tokenizer, ids) == piece
    turn = tokenizer("go", add_special_tokens=False).input_ids
    whole = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "go"},
        {"role": role.value, "content": "=408;"},
    ]
    rendered = tokenizer.apply_chat_template(whole, add_generation_prompt=True, tokenize=True, return_dict=False)
    space = tokenizer(" ").input_ids if template == ONLY_TWO_ROLES else []
    assert codec.encode(PROBLEM) + turn + space + [tokenizer.eos_token_id, *ids] == list(rendered)


def test_a_message_cannot_end_its_own_turn(tokenizer: PreTrainedTokenizerBase) -> None:
    codec = codec_of(tokenizer, template=CHATML)
    ids = codec.encode_message("4<eos>8", PROBLEM)
    assert ids.count(tokenizer.eos_token_id) == 1  # the template's own
    assert text(tokenizer, ids) == "\n[tool|<tool>4<eos>8</tool><eos>\n[assistant|"
    assert tokenizer.eos_token_id in tokenizer("4<eos>8").input_ids  # the control


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (ONLY_TWO_ROLES, r"refuses a message of environment\.role=tool: no tool\. Use environment\.role=user"),
        (DROPS_OTHER_ROLES, r"cannot be extended by a message"),
        (
            FORGETS_EARLIER_TURNS,
            r"cannot be extended by a message.*changes earlier text when the conversation continues",
        ),
        (OPENS_A_THOUGHT, r"cannot be extended by a message"),
        (
            NO_END,
            r"does not begin with a stop token \(<eos>\).*eos_token to the token at the end of a turn",
        ),
    ],
)
def test_templates_that_cannot_be_extended(tokenizer: PreTrainedTokenizerBase, template: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        codec_of(tokenizer, template=template)
    tokenizer.chat_template = template
    TextCodec(tokenizer, DataConfig(chat=True))  # the control: a single turn needs no extension


def test_the_end_of_a_call_is_one_token(tokenizer: PreTrainedTokenizerBase) -> None:
    codec = codec_of(tokenizer, replace(TOOLS, call_end=">>"))
    assert codec.stop_ids == [tokenizer.eos_token_id, *tokenizer(">>").input_ids]
    assert codec_of(tokenizer).stop_ids == [tokenizer.eos_token_id]
    for end in (">>>", "é"):
        with pytest.raises(ConfigError, match=rf"environment\.call_end='{end}'.*must be one known token"):
            codec_of(tokenizer, replace(TOOLS, call_end=end))
    with pytest.raises(ConfigError, match=r"environment\.call_end='>>' with data\.chat=true"):
        codec_of(tokenizer, replace(TOOLS, call_end=">>"), CHATML)


def test_an_environment_cannot_speak_beyond_the_embedding(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = None
    last = max(tokenizer.get_vocab().values())
    with pytest.raises(ConfigError, match=rf"tokens up to {last}, but the model's embedding ends at {last - 1}"):
        TextCodec(tokenizer, DataConfig(), environment=TOOLS, vocab_size=last)
    TextCodec(tokenizer, DataConfig(), environment=TOOLS, vocab_size=last + 1)  # the control


def test_chat_args_are_in_what_stands_around_a_message(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = CHATML.replace("|", "|{{ mood }}")
    for mood in ("calm ", ""):
        data = DataConfig(chat=True, chat_args={"mood": mood})
        ids = TextCodec(tokenizer, data, environment=TOOLS).encode_message("4", PROBLEM)
        assert tokenizer.decode(ids) == f"\n[tool|{mood}<tool>4</tool><eos>\n[assistant|{mood}"
