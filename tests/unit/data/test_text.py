from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase

from rlsync.config.data import DataConfig, DataSource
from rlsync.data.char_tokenizer import build_char_tokenizer
from rlsync.data.problem import Problem
from rlsync.data.text import TextCodec, load_tokenizer
from rlsync.errors import ConfigError, DataError

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
    with pytest.raises(DataError, match="neither the tokenizer nor the generation config has an eos token"):
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


def test_a_prompt_that_the_tokenizer_does_not_know_is_error_context_once(
    tokenizer: PreTrainedTokenizerBase, caplog: pytest.LogCaptureFixture
) -> None:
    codec = TextCodec(tokenizer, DataConfig())
    codec.select([problem("a"), problem("b")])
    assert not caplog.messages  # the control
    codec.select([problem("a"), problem("aZ"), problem("Z")])
    assert caplog.messages == [
        "the tokenizer does not know all characters of the prompt 'aZ', and possibly of others: the model reads <unk> "
        "in their place"
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


CHATML = (
    "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}<unk>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{% if thinking is defined and not thinking %}a{% endif %}b{% endif %}"
)


def test_chat_args_reach_the_template(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = CHATML
    ids = TextCodec(tokenizer, DataConfig(chat=True, chat_args={"thinking": False})).encode(problem("c"))
    assert ids == [5, 3, 4]
    assert TextCodec(tokenizer, DataConfig(chat=True)).encode(problem("c")) == [5, 4]


@pytest.mark.parametrize("name", ["enable_thinking", "tokenize", "padding", "add_generation_prompt"])
def test_chat_args_that_no_template_reads_are_refused(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    tokenizer.chat_template = CHATML
    with pytest.raises(ConfigError, match=rf"data\.chat_args has '{name}', but the tokenizer's chat template does not"):
        TextCodec(tokenizer, DataConfig(chat=True, chat_args={name: False}))
    with pytest.raises(ConfigError, match=r"data\.chat=false nothing reads it"):
        TextCodec(tokenizer, DataConfig(chat_args={name: False}))


def test_parts_have_their_own_chat_args(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = CHATML
    parts = {"a": DataConfig(chat=True, chat_args={"thinking": False}), "b": DataConfig(chat=True)}
    codec = TextCodec(tokenizer, DataConfig(source=DataSource.mixture, parts=parts))
    assert [codec.encode(replace(problem("c"), part=part)) for part in "ab"] == [[5, 3, 4], [5, 4]]


def test_a_template_s_end_of_turn_that_does_not_stop_is_named(
    tokenizer: PreTrainedTokenizerBase, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer.chat_template = CHATML
    codec = TextCodec(tokenizer, DataConfig(chat=True))
    assert "ends the model's turn with '<unk>' (2), which is not one of its stop ids [1]" in caplog.text
    assert codec.stop_ids == [1]
    caplog.clear()
    TextCodec(tokenizer, DataConfig(chat=True), extra_stop_ids=[2])
    TextCodec(tokenizer, DataConfig())
    tokenizer.chat_template = TEMPLATE
    TextCodec(tokenizer, DataConfig(chat=True))
    assert not caplog.records  # the controls


def test_special_tokens_are_kept_for_rewards_on_demand(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.add_special_tokens({"additional_special_tokens": ["[CALL]"]})
    call = tokenizer.convert_tokens_to_ids("[CALL]")
    keeping = TextCodec(tokenizer, DataConfig(keep_special_tokens=True))
    assert keeping.decode([3, call, 4, 1], problem("a")) == "a[CALL]b"  # without the stop token at the end
    assert keeping.decode([3, 1, 4], problem("a")) == "a<eos>b"
    assert TextCodec(tokenizer, DataConfig()).decode([3, call, 4, 1], problem("a")) == "ab"  # the control


def test_a_vocabulary_that_is_padded_beyond_the_tokenizer_reads_as_nothing(tokenizer: PreTrainedTokenizerBase) -> None:
    for keep in (False, True):
        codec = TextCodec(tokenizer, DataConfig(keep_special_tokens=keep), vocab_size=64)
        assert codec.decode([3, 50, 4], problem("a")) == "ab"
        assert codec.fits(problem("ab"))


def test_a_prompt_beyond_the_embedding_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    last = tokenizer.convert_tokens_to_ids(":")
    codec = TextCodec(tokenizer, DataConfig(), vocab_size=last)
    assert codec.fits(problem("a"))
    with pytest.raises(DataError, match=rf"problem a: has the token ':' \({last}\).*embedding ends at {last - 1}"):
        codec.fits(problem("a:"))
    assert TextCodec(tokenizer, DataConfig(), vocab_size=last + 1).fits(problem("a:"))  # the control


def test_a_stop_token_beyond_the_embedding_is_no_stop_token(tokenizer: PreTrainedTokenizerBase) -> None:
    assert TextCodec(tokenizer, DataConfig(), extra_stop_ids=[99], vocab_size=50).stop_ids == [1]
    with pytest.raises(DataError, match=r"within the model's 1 tokens, so no response could end"):
        TextCodec(tokenizer, DataConfig(), extra_stop_ids=[99], vocab_size=1)


def test_a_prompt_without_tokens_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    codec = TextCodec(tokenizer, DataConfig())
    with pytest.raises(DataError, match=r"the prompt '<eos>' of problem <eos> has no tokens"):
        codec.select([problem("a"), problem("<eos>")])
    assert codec.fits(problem(" "))  # the control


def test_a_special_token_that_a_prompt_spells_is_error_context_once(
    tokenizer: PreTrainedTokenizerBase, caplog: pytest.LogCaptureFixture
) -> None:
    codec = TextCodec(tokenizer, DataConfig())
    for text in ("a<b", "a<eos>b", "<pad>"):
        codec.fits(problem(text))
    (record,) = (r for r in caplog.records if "special token" in r.message)
    assert "the model reads '<eos>' as that token" in record.message
    caplog.clear()
    TextCodec(tokenizer, DataConfig(template="{question}<eos>a")).fits(problem("b<eos>a"))
    assert "special token" not in caplog.text  # the control: the template means it
