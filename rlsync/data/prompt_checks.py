"""Checks of the prompts' token ids before any actor is started."""

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
    """Refuses prompts that the model cannot continue, and warns once if it may read a prompt differently than intended.

    Args:
        tokenizer: The model's tokenizer.
        vocab_size: Number of rows of the model's embedding; 0 if unknown.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> None:
        self._tokenizer, self._vocab_size = tokenizer, vocab_size
        self._unknown = {tokenizer.unk_token_id} - {None, tokenizer.bos_token_id, tokenizer.eos_token_id}
        texts = sorted(special_tokens(tokenizer).values(), key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, texts)) or r"(?!)")
        self._warned: set[str] = set()

    def check(self, ids: list[int], problem: Problem, config: DataConfig) -> None:
        """Check a problem's prompt and its token ids.

        Args:
            ids: Token ids of the prompt.
            problem: The problem.
            config: Configuration of the problem's data.

        Raises:
            DataError: There are no token ids, or one is outside the model's embedding.
        """
        if not ids:
            raise DataError(
                f"the prompt {problem.prompt!r:.300} of problem {problem.id} has no tokens, so the model would have "
                "nothing to continue. Remove the row, or add text to data.template"
            )
        if self._vocab_size and max(ids) >= self._vocab_size:
            token = self._tokenizer.convert_ids_to_tokens(max(ids))
            raise DataError(
                f"the prompt {problem.prompt!r:.300} of problem {problem.id} has the token {token!r} ({max(ids)}), but "
                f"the model's embedding ends at {self._vocab_size - 1}: the tokenizer has more tokens than the "
                "embedding has rows. Use the tokenizer that the model was trained with, or resize the embedding "
                "(transformers' resize_token_embeddings)"
            )
        if not self._unknown.isdisjoint(ids):
            self._warn(
                "the tokenizer does not know all characters of",
                f"the model reads {self._tokenizer.unk_token} in their place",
                problem,
            )
        meant = "" if config.chat else config.template
        spelled = next((text for text in self._special.findall(problem.prompt) if text not in meant), None)
        if spelled is not None:
            meaning = f"the model reads {spelled!r} as that token, and not as text"
            self._warn("the text of a special token is in", meaning, problem)

    def _warn(self, what: str, effect: str, problem: Problem) -> None:
        """Warn only of the first such prompt."""
        if what not in self._warned:
            self._warned.add(what)
            logger.warning("%s the prompt %.300r, and possibly of others: %s", what, problem.prompt, effect)
