"""Insert an environment's message between two turns of the model, as token ids.

Sampled tokens are never converted to text and back: a conversation only grows, by the ids made here and by those that
the model samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from rlsync.config.environment import MESSAGE, EnvironmentConfig
from rlsync.errors import ConfigError

_ASKED, _SAID, _ANSWERED = "QUESTION", "ANSWER", "MESSAGE"
"""Contents of the conversation with which a chat template is tested."""


@dataclass(slots=True, kw_only=True)
class Surroundings:
    """Token ids around an environment's message, from the model's stop token to the start of its next turn."""

    before: list[int]
    after: list[int]


def surroundings(
    tokenizer: PreTrainedTokenizerBase,
    config: EnvironmentConfig,
    *,
    chat: bool,
    chat_args: dict[str, Any],
    stop_ids: list[int],
) -> Surroundings:
    """Return the token ids around every message.

    Args:
        tokenizer: The model's tokenizer.
        config: Configuration of the environment.
        chat: Use the tokenizer's chat template around environment.template.
        chat_args: Arguments of the chat template.
        stop_ids: Stop ids of the model.

    Raises:
        ConfigError: The chat template cannot be extended by a message.
    """
    before, after = _of_chat(tokenizer, config, chat_args, stop_ids) if chat else _of_template(config)
    return Surroundings(before=encode(tokenizer, before), after=encode(tokenizer, after))


def encode(tokenizer: PreTrainedTokenizerBase, text: str, *, literal: bool = False) -> list[int]:
    """Return the ids of a part of a conversation, without the special tokens that the tokenizer adds to a whole text.

    Args:
        tokenizer: The model's tokenizer.
        text: The text.
        literal: Read the text of a special token as ordinary text, so that a message cannot end its own turn.
    """
    return list(tokenizer(text, add_special_tokens=False, split_special_tokens=literal)["input_ids"])


def _of_template(config: EnvironmentConfig) -> tuple[str, str]:
    before, _, after = config.template.partition(MESSAGE)
    return before, after


def _of_chat(
    tokenizer: PreTrainedTokenizerBase, config: EnvironmentConfig, chat_args: dict[str, Any], stop_ids: list[int]
) -> tuple[str, str]:
    """Find the texts around a message by rendering a conversation with and without it.

    Raises:
        ConfigError: The template does not have the role, changes earlier text when a conversation continues, or does
            not end the model's turn with a stop token.
    """
    asked = [{"role": "user", "content": _ASKED}]
    answered = config.template.replace(MESSAGE, _ANSWERED)
    turn = [{"role": "assistant", "content": _SAID}, {"role": config.role.value, "content": answered}]
    render = partial(_render, tokenizer, config, chat_args)
    prompt, once, twice = render(asked), render([*asked, *turn]), render([*asked, *turn, *turn])
    piece = once.removeprefix(prompt + _SAID)
    if prompt + _SAID + piece != once or once + _SAID + piece != twice or piece.count(answered) != 1:
        raise ConfigError(
            "the tokenizer's chat template cannot be extended by a message: it changes earlier text when the "
            f"conversation continues. Prompt: {prompt!r}; with one more turn and message: {once!r}; with two: "
            f"{twice!r}. Use a template that only appends, another environment.role than {config.role}, or "
            "data.chat=false"
        )
    before, _, after = piece.partition(answered)
    own_before, own_after = _of_template(config)
    return _after_stop(before, tokenizer, stop_ids) + own_before, own_after + after


def _render(
    tokenizer: PreTrainedTokenizerBase,
    config: EnvironmentConfig,
    chat_args: dict[str, Any],
    messages: list[dict[str, str]],
) -> str:
    try:
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, **chat_args)
    except TemplateError as error:
        raise ConfigError(
            f"the tokenizer's chat template refuses a message of environment.role={config.role}: {error}. Use "
            "environment.role=user, or data.chat=false"
        ) from error
    assert isinstance(text, str)
    return text


def _after_stop(text: str, tokenizer: PreTrainedTokenizerBase, stop_ids: list[int]) -> str:
    """Return the text after the stop token, which the model has sampled itself."""
    stops = [tokenizer.convert_ids_to_tokens(stop) for stop in stop_ids]
    for stop in stops:
        head, found, rest = text.partition(str(stop))
        if found and not head.strip():
            return rest
    raise ConfigError(
        f"after a turn of the model the tokenizer's chat template writes {text!r}, which does not begin with a stop "
        f"token ({', '.join(map(str, stops))}): the model would not stop where the template ends its turn. Set the "
        "tokenizer's eos_token to the token at the end of a turn, or use data.chat=false"
    )
