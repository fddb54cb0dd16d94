"""Convert problems to token ids, and token ids to texts."""

from __future__ import annotations

import inspect
import logging
import re
from collections import Counter
from collections.abc import Sequence

from jinja2 import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from rlsync.config.data import DataConfig
from rlsync.config.environment import EnvironmentConfig
from rlsync.config.model import MAIN
from rlsync.data.problem import Problem
from rlsync.data.prompt_checks import PromptChecks
from rlsync.data.stops import unstopped_end
from rlsync.data.turns import Surroundings, encode, surroundings
from rlsync.errors import ConfigError, DataError

_TEMPLATE_VARIABLES = {"tools", "documents"}
"""Named arguments of apply_chat_template that are only passed on to the chat template."""
logger = logging.getLogger(__name__)


def load_tokenizer(path: str, revision: str = MAIN) -> PreTrainedTokenizerBase:
    """Load a tokenizer.

    Args:
        path: Folder or hub id of the model.
        revision: Revision of a hub id.

    Raises:
        DataError: There is no tokenizer, or it needs code of its own.
    """
    try:
        return AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=False)
    except Exception as error:  # a malformed tokenizer.json raises many types
        message = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"the tokenizer of {path!r} cannot be loaded: {message:.500}") from error


class TextCodec:
    """Encodes prompts and decodes responses.

    Args:
        tokenizer: The model's tokenizer.
        config: Configuration of the data.
        extra_stop_ids: Stop ids besides the tokenizer's eos, such as those of the model's generation config.
        environment: Configuration of the environment; None = no environment.
        vocab_size: Number of rows of the model's embedding; 0 if unknown.

    Raises:
        DataError: The tokenizer has no chat template although data.chat=true, or no stop id is within the vocabulary.
        ConfigError: A system prompt or data.chat_args are set that nothing would read, the environment's messages
            cannot be inserted between two turns, or they may have tokens that the model does not know.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        config: DataConfig,
        extra_stop_ids: Sequence[int] = (),
        environment: EnvironmentConfig | None = None,
        vocab_size: int = 0,
    ) -> None:
        for name, part in config.sources.items():
            _check_chat(part, f"data.parts.{name}" if name else "data", tokenizer)
        eos = tokenizer.eos_token_id
        ids = dict.fromkeys([*([] if eos is None else [int(eos)]), *extra_stop_ids])
        self.stop_ids: list[int] = [each for each in ids if not vocab_size or each < vocab_size]
        if not self.stop_ids:
            beyond = f" within the model's {vocab_size} tokens" if ids else ""
            raise DataError(
                f"neither the tokenizer nor the generation config has an eos token{beyond}, so no response could end. "
                "Set eos_token in the model's tokenizer_config.json"
            )
        self._tokenizer, self._configs = tokenizer, config.sources
        self._lengths: dict[tuple[str, str], int] = {}
        """Number of tokens of each measured prompt, by part and text."""
        self._checks = PromptChecks(tokenizer, vocab_size)
        self._surroundings: dict[str, Surroundings] = {}
        """Token ids around an environment's message, by part of the data."""
        if environment is not None and environment.present:
            self._prepare_turns(environment, vocab_size)
        else:
            self._warn_of_turns_without_end()

    def _prepare_turns(self, environment: EnvironmentConfig, vocab_size: int) -> None:
        """Find the token ids around a message, and add the end of a call to the stop ids."""
        last = max(self._tokenizer.get_vocab().values(), default=0)
        if vocab_size and last >= vocab_size:
            raise ConfigError(
                f"environment.kind={environment.kind}: the tokenizer has tokens up to {last}, but the model's "
                f"embedding ends at {vocab_size - 1}, and the environment's messages could have any token. Use the "
                "tokenizer that the model was trained with, or resize the embedding"
            )
        for name, part in self._configs.items():
            self._surroundings[name] = surroundings(
                self._tokenizer, environment, chat=part.chat, chat_args=part.chat_args, stop_ids=self.stop_ids
            )
        if environment.call_end:
            if any(part.chat for part in self._configs.values()):
                raise ConfigError(
                    f"environment.call_end={environment.call_end!r} with data.chat=true: a turn ends with the chat "
                    "template's own token. Leave environment.call_end empty, or use data.chat=false"
                )
            ids = encode(self._tokenizer, environment.call_end)
            if len(ids) != 1 or ids[0] == self._tokenizer.unk_token_id:
                raise ConfigError(
                    f"environment.call_end={environment.call_end!r} is {len(ids)} tokens of this model, {ids}, but "
                    "must be one known token to stop a turn. Choose another text, or leave it empty: then a turn ends "
                    "at the tokenizer's stop ids"
                )
            self.stop_ids = list(dict.fromkeys([*self.stop_ids, *ids]))

    def encode(self, problem: Problem) -> list[int]:
        """Return the token ids of the prompt, up to where the model's turn begins.

        Raises:
            DataError: The chat template refuses the messages.
        """
        config = self._configs[problem.part]
        return self._encode_chat(problem, config) if config.chat else self._encode_plain(problem)

    def encode_message(self, message: str, problem: Problem) -> list[int]:
        """Return the token ids of an environment's message, from the model's stop token to the start of its next turn.

        Args:
            message: Text of the message.
            problem: The problem of the conversation.
        """
        around = self._surroundings[problem.part]
        return [*around.before, *encode(self._tokenizer, message, literal=True), *around.after]

    def decode(self, ids: list[int], problem: Problem | None = None) -> str:
        """Return the text of token ids, without special tokens.

        Args:
            ids: The token ids.
            problem: The problem that they answer. If its data has keep_special_tokens=true, special tokens are kept,
                except the stop token at the end, which no reward expects.
        """
        keep = problem is not None and self._configs[problem.part].keep_special_tokens
        if keep and ids and ids[-1] in self.stop_ids:
            ids = ids[:-1]
        text = self._tokenizer.decode(ids, skip_special_tokens=not keep)
        assert isinstance(text, str)
        return text

    def fits(self, problem: Problem) -> bool:
        """Whether the problem's prompt has at most max_prompt_tokens tokens."""
        return self._length(problem) <= self._configs[problem.part].max_prompt_tokens

    def _length(self, problem: Problem) -> int:
        key = (problem.part, problem.prompt)
        if key not in self._lengths:
            ids = self.encode(problem)
            self._lengths[key] = len(ids)
            self._checks.check(ids, problem, self._configs[problem.part])
        return self._lengths[key]

    def select(self, problems: list[Problem]) -> tuple[list[Problem], dict[str, int]]:
        """Leave out problems whose prompts are too long.

        Returns:
            The problems that fit, and the number of those left out for each part that has any.

        Raises:
            DataError: All problems of a part are too long.
        """
        kept, left_out = [], Counter[str]()
        for problem in problems:
            if self.fits(problem):
                kept.append(problem)
            else:
                left_out[problem.part] += 1
        for part in left_out.keys() - {problem.part for problem in kept}:
            own = [self._length(problem) for problem in problems if problem.part == part]
            field = f"data.parts.{part}.max_prompt_tokens" if part else "data.max_prompt_tokens"
            raise DataError(
                f"{field}={self._configs[part].max_prompt_tokens} leaves out all {len(own)} problems: the shortest "
                f"prompt has {min(own)} tokens, the longest {max(own)}. Raise {field}"
            )
        return kept, dict(left_out)

    def _encode_plain(self, problem: Problem) -> list[int]:
        ids: list[int] = list(self._tokenizer(problem.prompt)["input_ids"])
        # Some tokenizers append eos to every text, and a text may contain it; the model would not continue after it.
        while ids and ids[-1] == self._tokenizer.eos_token_id:
            ids.pop()
        return ids

    def _encode_chat(self, problem: Problem, config: DataConfig) -> list[int]:
        system = [{"role": "system", "content": config.system_prompt}] if config.system_prompt else []
        messages = [*system, {"role": "user", "content": problem.prompt}]
        try:
            return list(
                self._tokenizer.apply_chat_template(
                    messages, add_generation_prompt=True, tokenize=True, return_dict=False, **config.chat_args
                )
            )
        except TemplateError as error:
            raise DataError(
                f"the tokenizer's chat template refuses the messages: {error}. Leave data.system_prompt empty if the "
                "template has no system message, or use data.chat=false"
            ) from error

    def _warn_of_turns_without_end(self) -> None:
        """Warn if a chat template ends the model's turn with a token that does not stop it.

        With an environment such a template is refused (turns.py).
        """
        for part in self._configs.values():
            end = unstopped_end(self._tokenizer, part.chat_args, self.stop_ids) if part.chat else None
            if end is not None:
                logger.warning(
                    "the chat template ends the model's turn with %r (%d), which is not one of its stop ids %s: a "
                    "response continues after it, up to rollout.max_tokens. Add it to eos_token_id in the model's "
                    "generation_config.json",
                    *end, self.stop_ids,
                )  # fmt: skip
                return


def _check_chat(config: DataConfig, name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    if config.chat and tokenizer.chat_template is None:
        raise DataError(f"{name}.chat=true, but the tokenizer has no chat template. Use {name}.chat=false")
    if config.system_prompt and not config.chat:
        raise ConfigError(
            f"{name}.system_prompt is set, but with {name}.chat=false nothing reads it. Use {name}.chat=true, or put "
            f"the text into {name}.template"
        )
    own = inspect.signature(tokenizer.apply_chat_template).parameters.keys() - _TEMPLATE_VARIABLES
    template = tokenizer.get_chat_template() if config.chat_args and config.chat else ""
    for key in config.chat_args:
        if key in own or not re.search(rf"\b{re.escape(key)}\b", template):
            raise ConfigError(
                f"{name}.chat_args has {key!r}, but "
                + (
                    "the tokenizer's chat template does not read it"
                    if config.chat
                    else f"with {name}.chat=false nothing reads it"
                )
                + ". Leave it out, or correct its name"
            )
