"""Checks of each prompt's token ids, before anything starts."""

from __future__ import annotations

import logging
import re

from transformers import PreTrainedTokenizerBase

from rlsync.config.data import DataConfig
from rlsync.data.problem import Problem
from rlsync.data.stops import special_tokens
from rlsync.errors import DataError

logger = logging.getLogger(__name__)


class PromptChecks:
    """Refuses prompts that no model could continue, and warns once of what it may read in another way than meant.

    Args:
        vocab_size: rows of the model's embedding; 0 where no model is known.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> None:
        self._tokenizer, self._vocab_size = tokenizer, vocab_size
        self._unknown = {tokenizer.unk_token_id} - {None, tokenizer.bos_token_id, tokenizer.eos_token_id}
        texts = sorted(special_tokens(tokenizer).values(), key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, texts)) or r"(?!)")
        self._warned: set[str] = set()

    def check(self, ids: list[int], problem: Problem, config: DataConfig) -> None:
        """Look at a problem's prompt and its token ids.

        Raises:
            DataError: there are none, or the model has no embedding of one.
        """
        if not ids:
            raise DataError(
                f"the prompt {problem.prompt!r:.300} of problem {problem.id} has no tokens, so the model would have "
                "nothing to continue. Remove the row, or write something around it in data.template"
            )
        if self._vocab_size and max(ids) >= self._vocab_size:
            token = self._tokenizer.convert_ids_to_tokens(max(ids))
            raise DataError(
                f"the prompt {problem.prompt!r:.300} of problem {problem.id} has the token {token!r} ({max(ids)}), and "
                f"the model's embedding ends at {self._vocab_size - 1}: the tokenizer is longer than the embedding. "
                "Take the tokenizer that the model was trained with, or resize the embedding (transformers' "
                "resize_token_embeddings)"
            )
        if not self._unknown.isdisjoint(ids):
            self._warn(
                "the tokenizer does not know all of", f"the model reads {self._tokenizer.unk_token} there", problem
            )
        meant = "" if config.chat else config.template
        spelled = next((text for text in self._special.findall(problem.prompt) if text not in meant), None)
        if spelled is not None:
            told = f"the model reads {spelled!r} there as that token and not as text"
            self._warn("a special token is spelled out in", told, problem)

    def _warn(self, what: str, effect: str, problem: Problem) -> None:
        """Once: the first such prompt tells the user of all."""
        if what not in self._warned:
            self._warned.add(what)
            logger.warning("%s the prompt %.300r, perhaps of others too: %s", what, problem.prompt, effect)
