"""The texts of tokens: characters of several tokens, spaces, and which tokenizer is the run's."""

import random

import pytest
from report_runs import make_run, rollout
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from rlsync.data.char_tokenizer import build_char_tokenizer
from rlsync.report.rollout_line import RolloutLine, rollout_line
from rlsync.report.run_reader import RunReader
from rlsync.report.tokens import Pieces, _FastDecoder, find_pieces
from rlsync.telemetry.json_text import to_json


def _byte_level(folder):
    """A tokenizer with one token per byte."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {symbol: index for index, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer


def _line(tokenizer, text, **changes) -> RolloutLine:
    ids = tokenizer.encode(text).ids
    row = rollout(1, 0, random.Random(0), response=text, turns=[text], response_tokens=ids)
    line = rollout_line(to_json(row | {"logprob_bits": ["00000000"] * len(ids)} | changes).encode())
    assert line is not None
    return line


def test_a_character_of_several_tokens_stands_at_its_first(tmp_path):
    tokenizer = _byte_level(tmp_path)
    pieces = Pieces(_FastDecoder(tmp_path / "tokenizer.json"))
    text = "a\N{SNOWMAN} \N{GRINNING FACE}b\n"
    texts = pieces.texts(tokenizer.encode(text).ids)
    assert texts[:5] == ["a", "\N{SNOWMAN}", "", "", " "]
    assert "".join(texts) == text
    half = pieces.texts(tokenizer.encode("\N{GRINNING FACE}").ids[:2])
    assert half == ["\N{REPLACEMENT CHARACTER}"] * 2


def test_a_space_before_a_word_is_part_of_its_token(tmp_path):
    tokenizer = Tokenizer(
        models.WordLevel({"\N{LOWER ONE EIGHTH BLOCK}one": 0, "\N{LOWER ONE EIGHTH BLOCK}two": 1}, "x")
    )
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert Pieces(_FastDecoder(tmp_path / "tokenizer.json")).texts([0, 1]) == [" one", " two"]


def test_the_tokenizer_of_the_newest_checkpoint_is_used(tmp_path):
    tokenizer = _byte_level(tmp_path / "checkpoints/step_9")
    build_char_tokenizer(tmp_path / "checkpoints/step_10", "abc")  # a tokenizer that cannot be the run's
    line = _line(tokenizer, "4 + 4 is 8")
    pieces = find_pieces(tmp_path, {}, [line])
    assert pieces is not None
    assert pieces.texts(line.tokens) == list("4 + 4 is 8")


def test_a_tiny_model_is_found_in_its_cache(tmp_path):
    build_char_tokenizer(tmp_path / "tiny_1", "0123456789")
    build_char_tokenizer(tmp_path / "tiny_2", "0123456789+-= ")
    config = {"model.source": "tiny", "model.cache_dir": str(tmp_path)}
    line = _line(Tokenizer.from_file(str(tmp_path / "tiny_2/tokenizer.json")), "1+2=3")
    pieces = find_pieces(tmp_path / "run", config, [line])
    assert pieces is not None
    assert pieces.texts([*line.tokens, 1]) == ["1", "+", "2", "=", "3", "<eos>"]
    other = _line(Tokenizer.from_file(str(tmp_path / "tiny_2/tokenizer.json")), "1+2=3", turns=["something else"])
    assert find_pieces(tmp_path / "run", config, [other]) is None


@pytest.mark.parametrize("path", ["", "no/such-model", "/no/such/folder", "a/b/c"])
def test_without_a_tokenizer_there_are_no_texts(tmp_path, path):
    assert find_pieces(tmp_path, {"model.source": "huggingface", "model.path": path}, [_any_line()]) is None


def test_a_folder_of_a_model_is_read(tmp_path):
    tokenizer = _byte_level(tmp_path / "run/model")
    reader = RunReader(make_run(tmp_path / "run"))
    reader.update()
    assert reader.pieces() is None  # its ids are not those of the tokenizer
    assert find_pieces(tmp_path / "run", reader.config, [_line(tokenizer, "so")]) is not None


def _any_line() -> RolloutLine:
    line = rollout_line(to_json(rollout(1, 0, random.Random(0))).encode())
    assert line is not None
    return line
