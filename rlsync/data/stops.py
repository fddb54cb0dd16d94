"""The stop ids of a model, and whether its chat template agrees with them."""

from __future__ import annotations

from typing import Any

from jinja2 import TemplateError
from transformers import AutoConfig, GenerationConfig, PreTrainedTokenizerBase

from rlsync.config.model import MAIN
from rlsync.errors import ConfigError

_QUESTION, _ANSWER = "QUESTION", "ANSWER"
"""Contents of the conversation with which a chat template is tested."""


def generation_stop_ids(path: str, revision: str = MAIN) -> list[int]:
    """Return the end tokens of generation_config.json or, without one, of config.json. vLLM always stops at these.

    Args:
        path: Folder or hub id of the model.
        revision: Revision of a hub id.

    Raises:
        ConfigError: Neither file can be read.
    """
    try:
        try:
            generation = GenerationConfig.from_pretrained(path, revision=revision)
        except OSError:  # there is no generation_config.json
            model = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False)
            generation = GenerationConfig.from_model_config(model)
        eos = generation.eos_token_id
        ids = [int(each) for each in (eos if isinstance(eos, list) else [] if eos is None else [eos])]
    except Exception as error:  # malformed files raise many types
        raise ConfigError(
            f"{path}: no end tokens can be read from generation_config.json or config.json ({error})"
        ) from error
    return [each for each in ids if each >= 0]


def unstopped_end(
    tokenizer: PreTrainedTokenizerBase, chat_args: dict[str, Any], stop_ids: list[int]
) -> tuple[str, int] | None:
    """Return text and id of the token with which the chat template ends the model's turn, if it is not a stop id.

    The result is None if it is a stop id, if the template cannot be rendered with an answer, or if it writes no special
    token after the answer.
    """
    messages = [{"role": "user", "content": _QUESTION}, {"role": "assistant", "content": _ANSWER}]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, **chat_args)
    except TemplateError:
        return None
    after = tokenizer(str(text).rpartition(_ANSWER)[2], add_special_tokens=False)["input_ids"]
    special = special_tokens(tokenizer)
    ends = [token for token in after if token in special]
    if not ends or ends[0] in stop_ids:
        return None
    return special[ends[0]], ends[0]


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """Return the text of each special token by its id."""
    return {index: token.content for index, token in tokenizer.added_tokens_decoder.items() if token.special}
