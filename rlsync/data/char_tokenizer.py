"""A tokenizer with one token per character, for models made from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, EOS, UNK = SPECIAL_TOKENS = ("<pad>", "<eos>", "<unk>")


def build_char_tokenizer(folder: Path, characters: str, words: Sequence[str] = ()) -> None:
    """Save a tokenizer that AutoTokenizer can load.

    Its ids are <pad> 0, <eos> 1, <unk> 2, then the characters in order, then the words. A word is always one token.
    Text of these characters is unchanged by encoding and decoding; any other character becomes <unk>.

    Args:
        folder: Where the tokenizer is saved.
        characters: Characters that are one token each.
        words: Texts of several characters that are one token each.
    """
    vocabulary = {token: index for index, token in enumerate((*SPECIAL_TOKENS, *dict.fromkeys(characters)))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    # The empty pattern matches between any two characters, including newlines and spaces.
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK,
        clean_up_tokenization_spaces=False,
    )
    fast.add_tokens(list(words))
    fast.save_pretrained(folder)
