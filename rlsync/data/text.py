"""Problems to token ids and back; the only place that knows chat templates and stop ids."""

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
"""Arguments of apply_chat_template that only chat templates read."""
logger = logging.getLogger(__name__)


def load_tokenizer(path: str, revision: str = MAIN) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder or hub id.

    Args:
        revision: of a hub id.
    Raises:
        DataError: there is none, or it would run code of its own.
    """
    try:
        return AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=False)
    except Exception as error:  # what a stranger's tokenizer.json may raise has many types
        told = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"no tokenizer can be loaded from {path!r}: {told:.500}") from error


class TextCodec:
    """Encodes prompts and decodes responses.

    Args:
        extra_stop_ids: stop ids besides the tokenizer's eos, such as those of the model's generation config.
        environment: what answers the model between its turns.
        vocab_size: rows of the model's embedding; 0 where no model is known.
    Raises:
        DataError: the tokenizer has no chat template and data.chat=true, or there is no stop id that the model knows.
        ConfigError: a system prompt or data.chat_args are set that nothing would read, or the environment's messages
            cannot be put between two turns, or hold tokens that the model does not know.
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
                f"the tokenizer has no eos token and the generation config no eos_token_id{beyond}, so no response "
                "could end. Set eos_token in the model's tokenizer_config.json"
            )
        self._tokenizer, self._configs = tokenizer, config.sources
        self._lengths: dict[tuple[str, str], int] = {}
        """Of prompts that were measured, by part and text."""
        self._checks = PromptChecks(tokenizer, vocab_size)
        self._surroundings: dict[str, Surroundings] = {}
        """Tokens around an environment's message, by part of the data."""
        if environment is not None and environment.present:
            self._prepare_turns(environment, vocab_size)
        else:
            self._warn_of_turns_without_end()

    def _prepare_turns(self, environment: EnvironmentConfig, vocab_size: int) -> None:
        """Find the tokens around a message, and add the end of a call to the stop ids."""
        last = max(self._tokenizer.get_vocab().values(), default=0)
        if vocab_size and last >= vocab_size:
            raise ConfigError(
                f"environment.kind={environment.kind}: the tokenizer has tokens up to {last}, the model's embedding "
                f"ends at {vocab_size - 1}, and nobody knows before what the environment will say. Take the tokenizer "
                "that the model was trained with, or resize the embedding"
            )
        for name, part in self._configs.items():
            self._surroundings[name] = surroundings(
                self._tokenizer, environment, chat=part.chat, chat_args=part.chat_args, stop_ids=self.stop_ids
            )
        if environment.call_end:
            if any(part.chat for part in self._configs.values()):
                raise ConfigError(
                    f"environment.call_end={environment.call_end!r} with data.chat=true: a turn ends at the chat "
                    "template's own token. Leave it empty, or use data.chat=false"
                )
            ids = encode(self._tokenizer, environment.call_end)
            if len(ids) != 1 or ids[0] == self._tokenizer.unk_token_id:
                raise ConfigError(
                    f"environment.call_end={environment.call_end!r} is {len(ids)} tokens of this model, {ids}; only "
                    "one token that it knows can stop a turn. Choose another text, or leave it empty: a turn then ends "
                    "at the tokenizer's stop ids"
                )
            self.stop_ids = list(dict.fromkeys([*self.stop_ids, *ids]))

    def encode(self, problem: Problem) -> list[int]:
        """Token ids of the prompt, as the model is to continue them.

        Raises:
            DataError: the chat template refuses the messages.
        """
        config = self._configs[problem.part]
        return self._encode_chat(problem, config) if config.chat else self._encode_plain(problem)

    def encode_message(self, message: str, problem: Problem) -> list[int]:
        """Token ids of an environment's message, from the model's stop token to where its next turn begins."""
        around = self._surroundings[problem.part]
        return [*around.before, *encode(self._tokenizer, message, literal=True), *around.after]

    def decode(self, ids: list[int], problem: Problem | None = None) -> str:
        """The text, without special tokens.

        Args:
            problem: that it answers. Where its data has keep_special_tokens=true they stay, but for the stop token at
                the end, which no reward expects there.
        """
        keep = problem is not None and self._configs[problem.part].keep_special_tokens
        if keep and ids and ids[-1] in self.stop_ids:
            ids = ids[:-1]
        text = self._tokenizer.decode(ids, skip_special_tokens=not keep)
        assert isinstance(text, str)
        return text

    def fits(self, problem: Problem) -> bool:
        """Whether its prompt is no longer than max_prompt_tokens."""
        return self._length(problem) <= self._configs[problem.part].max_prompt_tokens

    def _length(self, problem: Problem) -> int:
        key = (problem.part, problem.prompt)
        if key not in self._lengths:
            ids = self.encode(problem)
            self._lengths[key] = len(ids)
            self._checks.check(ids, problem, self._configs[problem.part])
        return self._lengths[key]

    def select(self, problems: list[Problem]) -> tuple[list[Problem], dict[str, int]]:
        """The problems whose prompts fit, and how many of each part (name -> count, where any) were left out.

        Raises:
            DataError: none of a part's fits.
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
                f"{field}={self._configs[part].max_prompt_tokens} leaves out all {len(own)} problems; the shortest "
                f"prompt has {min(own)} tokens, the longest {max(own)}. Raise it"
            )
        return kept, dict(left_out)

    def _encode_plain(self, problem: Problem) -> list[int]:
        ids: list[int] = list(self._tokenizer(problem.prompt)["input_ids"])
        # Some tokenizers end every text with eos, and a text may spell one out; the model would have nothing to say.
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
                f"the tokenizer's chat template refuses the messages: {error}. Some take no system turn: then leave "
                "data.system_prompt empty; or use data.chat=false"
            ) from error

    def _warn_of_turns_without_end(self) -> None:
        """With an environment such a template is refused (turns.py)."""
        for part in self._configs.values():
            end = unstopped_end(self._tokenizer, part.chat_args, self.stop_ids) if part.chat else None
            if end is not None:
                logger.warning(
                    "the chat template ends the model's turn with %r (%d), which is none of its stop ids %s: a "
                    "response goes on after it, up to rollout.max_tokens. Add it to eos_token_id in the model's "
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
                f"{name}.chat_args has {key!r}, and "
                + ("the tokenizer's chat template does not read it" if config.chat else f"{name}.chat=false reads none")
                + ". Leave it out, or correct its name"
            )
