"""Problems to token ids and back; the only place that knows chat templates and stop ids."""

from __future__ import annotations

from collections.abc import Sequence

from jinja2 import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from rlsync.config.data import DataConfig
from rlsync.errors import ConfigError, DataError
from rlsync.types import Problem


def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder or hub id.

    Raises:
        DataError: there is none.
    """
    try:
        return AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise DataError(f"no tokenizer can be loaded from {path!r}: {error}") from error


class TextCodec:
    """Encodes prompts and decodes responses.

    Args:
        extra_stop_ids: stop ids besides the tokenizer's eos, such as those of the model's generation config.
    Raises:
        DataError: the tokenizer has no chat template and data.chat=true, or there is no stop id.
        ConfigError: a system prompt is set that nothing would read.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, config: DataConfig, extra_stop_ids: Sequence[int] = ()
    ) -> None:
        if config.chat and tokenizer.chat_template is None:
            raise DataError("data.chat=true, but the tokenizer has no chat template. Use data.chat=false")
        if config.system_prompt and not config.chat:
            raise ConfigError(
                "data.system_prompt is set, but with data.chat=false nothing reads it. Use data.chat=true, or put the "
                "text into data.template"
            )
        eos = tokenizer.eos_token_id
        self.stop_ids: list[int] = list(dict.fromkeys([*([] if eos is None else [int(eos)]), *extra_stop_ids]))
        if not self.stop_ids:
            raise DataError(
                "the tokenizer has no eos token and the generation config no eos_token_id, so no response could end. "
                "Set eos_token in the model's tokenizer_config.json"
            )
        self._tokenizer = tokenizer
        self._config = config

    def encode(self, problem: Problem) -> list[int]:
        """Token ids of the prompt, as the model is to continue them.

        Raises:
            DataError: the chat template refuses the messages.
        """
        return self._encode_chat(problem) if self._config.chat else self._encode_plain(problem)

    def decode(self, ids: list[int]) -> str:
        """The text, without special tokens."""
        text = self._tokenizer.decode(ids, skip_special_tokens=True)
        assert isinstance(text, str)
        return text

    def select(self, problems: list[Problem]) -> tuple[list[Problem], int]:
        """The problems whose prompts fit, and how many were left out.

        Raises:
            DataError: none fits.
        """
        limit = self._config.max_prompt_tokens
        lengths = [len(self.encode(problem)) for problem in problems]
        kept = [problem for problem, length in zip(problems, lengths, strict=True) if length <= limit]
        if problems and not kept:
            raise DataError(
                f"data.max_prompt_tokens={limit} leaves out all {len(problems)} problems; the shortest prompt has "
                f"{min(lengths)} tokens, the longest {max(lengths)}. Raise it"
            )
        return kept, len(problems) - len(kept)

    def _encode_plain(self, problem: Problem) -> list[int]:
        ids: list[int] = list(self._tokenizer(problem.prompt)["input_ids"])
        # Some tokenizers end every text with eos, and a text may spell one out; the model would have nothing to say.
        while ids and ids[-1] == self._tokenizer.eos_token_id:
            ids.pop()
        return ids

    def _encode_chat(self, problem: Problem) -> list[int]:
        system = [{"role": "system", "content": self._config.system_prompt}] if self._config.system_prompt else []
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
