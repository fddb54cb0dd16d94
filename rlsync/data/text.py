"""Problems to token ids and back; the only place that knows chat templates and stop ids."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from jinja2 import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from rlsync.config.data import DataConfig
from rlsync.config.environment import EnvironmentConfig
from rlsync.config.model import MAIN
from rlsync.data.turns import Surroundings, encode, surroundings
from rlsync.errors import ConfigError, DataError
from rlsync.types import Problem

logger = logging.getLogger(__name__)


def load_tokenizer(path: str, revision: str = MAIN) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder or hub id.

    Args:
        revision: of a hub id.
    Raises:
        DataError: there is none.
    """
    try:
        return AutoTokenizer.from_pretrained(path, revision=revision)
    except (OSError, ValueError) as error:
        raise DataError(f"no tokenizer can be loaded from {path!r}: {error}") from error


class TextCodec:
    """Encodes prompts and decodes responses.

    Args:
        extra_stop_ids: stop ids besides the tokenizer's eos, such as those of the model's generation config.
        environment: what answers the model between its turns.
    Raises:
        DataError: the tokenizer has no chat template and data.chat=true, or there is no stop id.
        ConfigError: a system prompt is set that nothing would read, or the environment's messages cannot be put
            between two turns.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        config: DataConfig,
        extra_stop_ids: Sequence[int] = (),
        environment: EnvironmentConfig | None = None,
    ) -> None:
        for name, part in config.leaves.items():
            _check_chat(part, f"data.parts.{name}" if name else "data", tokenizer)
        eos = tokenizer.eos_token_id
        self.stop_ids: list[int] = list(dict.fromkeys([*([] if eos is None else [int(eos)]), *extra_stop_ids]))
        if not self.stop_ids:
            raise DataError(
                "the tokenizer has no eos token and the generation config no eos_token_id, so no response could end. "
                "Set eos_token in the model's tokenizer_config.json"
            )
        self._tokenizer = tokenizer
        self._configs = config.leaves
        self._lengths: dict[tuple[str, str], int] = {}
        """Of prompts that were measured, by part and text."""
        self._warned = False
        self._surroundings: dict[bool, Surroundings] = {}
        if environment is not None and environment.present:
            self._prepare_turns(environment)

    def _prepare_turns(self, environment: EnvironmentConfig) -> None:
        """By data.chat: what surrounds a message; and the end of a call among the stop ids."""
        for chat in {part.chat for part in self._configs.values()}:
            self._surroundings[chat] = surroundings(self._tokenizer, environment, chat=chat, stop_ids=self.stop_ids)
        if environment.call_end:
            if any(self._surroundings):
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
        return self._encode_chat(problem, config.system_prompt) if config.chat else self._encode_plain(problem)

    def encode_message(self, message: str, problem: Problem) -> list[int]:
        """Token ids of an environment's message, from the model's stop token to where its next turn begins."""
        around = self._surroundings[self._configs[problem.part].chat]
        return [*around.before, *encode(self._tokenizer, message, literal=True), *around.after]

    def decode(self, ids: list[int]) -> str:
        """The text, without special tokens."""
        text = self._tokenizer.decode(ids, skip_special_tokens=True)
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
            self._warn_of_unknown(ids, problem)
        return self._lengths[key]

    def _warn_of_unknown(self, ids: list[int], problem: Problem) -> None:
        """Once: the first such prompt tells the user of all."""
        tokenizer = self._tokenizer
        unknown = {tokenizer.unk_token_id} - {None, tokenizer.bos_token_id, tokenizer.eos_token_id}
        if self._warned or unknown.isdisjoint(ids):
            return
        self._warned = True
        logger.warning(
            "the tokenizer does not know all of the prompt %.300r, perhaps of others too: the model reads %s there",
            problem.prompt, tokenizer.unk_token,
        )  # fmt: skip

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

    def _encode_chat(self, problem: Problem, system_prompt: str) -> list[int]:
        system = [{"role": "system", "content": system_prompt}] if system_prompt else []
        messages = [*system, {"role": "user", "content": problem.prompt}]
        try:
            return list(
                self._tokenizer.apply_chat_template(
                    messages, add_generation_prompt=True, tokenize=True, return_dict=False
                )
            )
        except TemplateError as error:
            raise DataError(
                f"the tokenizer's chat template refuses the messages: {error}. Some take no system turn: then leave "
                "data.system_prompt empty; or use data.chat=false"
            ) from error


def _check_chat(config: DataConfig, name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    if config.chat and tokenizer.chat_template is None:
        raise DataError(f"{name}.chat=true, but the tokenizer has no chat template. Use {name}.chat=false")
    if config.system_prompt and not config.chat:
        raise ConfigError(
            f"{name}.system_prompt is set, but with {name}.chat=false nothing reads it. Use {name}.chat=true, or put "
            f"the text into {name}.template"
        )
