from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase

from rlsync.config.data import DataConfig, DataSource
from rlsync.data.char_tokenizer import build_char_tokenizer
from rlsync.data.text import TextCodec, load_tokenizer
from rlsync.errors import ConfigError, DataError
from rlsync.types import Problem

CHARACTERS = "abc \n?+:"
TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'system' and m.content == 'b' %}{{ raise_exception('no b') }}{% endif %}"
    "{{ m.content }}<eos>{% endfor %}{% if add_generation_prompt %}a:{% endif %}"
)


@pytest.fixture
def tokenizer(tmp_path: Path) -> PreTrainedTokenizerBase:
    build_char_tokenizer(tmp_path, CHARACTERS)
    return load_tokenizer(str(tmp_path))


def problem(prompt: str) -> Problem:
    return Problem(id=prompt, prompt=prompt, answer="")


@pytest.mark.parametrize("text", ["a b", "  a\n\n b ", "a ?", "", " ", "a + b : c"])
def test_characters_survive_exactly(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    codec = TextCodec(tokenizer, DataConfig())
    ids = codec.encode(problem(text))
    assert ids == [3 + CHARACTERS.index(character) for character in text]
    assert codec.decode(ids) == text


def test_special_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (0, 1, 2)
    assert len(tokenizer) == 3 + len(CHARACTERS)
    codec = TextCodec(tokenizer, DataConfig())
    assert codec.encode(problem("aZ")) == [3, 2]
    assert codec.decode([3, 4, 1]) == "ab"


def test_repeated_characters_are_one_token(tmp_path: Path) -> None:
    build_char_tokenizer(tmp_path, "aab")
    assert len(load_tokenizer(str(tmp_path))) == 5


def test_an_appended_eos_is_stripped_and_a_bos_kept(tokenizer: PreTrainedTokenizerBase) -> None:
    backend = tokenizer.backend_tokenizer
    backend.post_processor = TemplateProcessing(single="<pad> $A <eos>", special_tokens=[("<pad>", 0), ("<eos>", 1)])
    assert tokenizer("a").input_ids == [0, 3, 1]
    assert TextCodec(tokenizer, DataConfig()).encode(problem("a")) == [0, 3]
    # A text that spells eos out, before the one that is appended.
    assert TextCodec(tokenizer, DataConfig()).encode(problem("a<eos>")) == [0, 3]


def test_stop_ids(tokenizer: PreTrainedTokenizerBase) -> None:
    assert TextCodec(tokenizer, DataConfig()).stop_ids == [1]
    assert TextCodec(tokenizer, DataConfig(), extra_stop_ids=[7, 1, 5]).stop_ids == [1, 7, 5]
    tokenizer.eos_token = None
    assert TextCodec(tokenizer, DataConfig(), extra_stop_ids=[7]).stop_ids == [7]
    with pytest.raises(DataError, match="no eos token"):
        TextCodec(tokenizer, DataConfig())


def test_chat(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = TEMPLATE
    ids = TextCodec(tokenizer, DataConfig(chat=True, system_prompt="c")).encode(problem("b"))
    assert ids == [5, 1, 4, 1, 3, 10]
    assert TextCodec(tokenizer, DataConfig(chat=True)).encode(problem("b")) == [4, 1, 3, 10]


def test_chat_without_a_template(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(DataError, match=r"data\.chat=false"):
        TextCodec(tokenizer, DataConfig(chat=True))


def test_chat_template_that_refuses(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = TEMPLATE
    with pytest.raises(DataError, match=r"no b.*data\.system_prompt"):
        TextCodec(tokenizer, DataConfig(chat=True, system_prompt="b")).encode(problem("a"))


def test_a_system_prompt_that_nothing_reads(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(ConfigError, match=r"data\.system_prompt"):
        TextCodec(tokenizer, DataConfig(system_prompt="a"))


def test_select(tokenizer: PreTrainedTokenizerBase) -> None:
    codec = TextCodec(tokenizer, DataConfig(max_prompt_tokens=2))
    short, exact, long = problem("a"), problem("ab"), problem("abc")
    assert codec.select([long, exact, short]) == ([exact, short], {"": 1})
    assert codec.select([]) == ([], {})
    with pytest.raises(DataError, match=r"data\.max_prompt_tokens=2 leaves out all 1 .* shortest prompt has 3"):
        codec.select([long])


def test_a_prompt_that_the_tokenizer_does_not_know_is_told_of_once(
    tokenizer: PreTrainedTokenizerBase, caplog: pytest.LogCaptureFixture
) -> None:
    codec = TextCodec(tokenizer, DataConfig())
    codec.select([problem("a"), problem("b")])
    assert not caplog.messages  # the control
    codec.select([problem("a"), problem("aZ"), problem("Z")])
    assert caplog.messages == [
        "the tokenizer does not know all of the prompt 'aZ', perhaps of others too: the model reads <unk> there"
    ]


def test_parts_of_a_mixture_have_their_own_limits_and_chat(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = TEMPLATE
    parts = {"a": DataConfig(max_prompt_tokens=2), "b": DataConfig(max_prompt_tokens=4, chat=True)}
    codec = TextCodec(tokenizer, DataConfig(source=DataSource.mixture, parts=parts))
    problems = [replace(problem(text), part=part) for part in "ab" for text in ("a", "abb", "bbb", "b")]
    assert codec.encode(problems[0]) == [3]
    assert codec.encode(problems[4]) == [3, 1, 3, 10]
    kept, left_out = codec.select(problems)
    assert [(p.part, p.prompt) for p in kept] == [("a", "a"), ("a", "b"), ("b", "a"), ("b", "b")]
    assert left_out == {"a": 2, "b": 2}
    with pytest.raises(
        DataError, match=r"data\.parts\.b\.max_prompt_tokens=4 leaves out all 2 .* shortest prompt has 6"
    ):
        codec.select([problems[0], *problems[5:7]])
    with pytest.raises(ConfigError, match=r"data\.parts\.a\.system_prompt is set"):
        TextCodec(tokenizer, DataConfig(source=DataSource.mixture, parts={"a": DataConfig(system_prompt="x")}))


def test_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=str(tmp_path)):
        load_tokenizer(str(tmp_path))
