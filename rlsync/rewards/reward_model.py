"""A reward model: a Hugging Face sequence classifier with one label."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerBase

from rlsync.config.reward import RewardFunctionConfig
from rlsync.errors import ConfigError


@dataclass(slots=True, kw_only=True)
class ModelScores:
    """Scores of a batch of completions."""

    rewards: list[float]
    truncated: int
    """Number of texts that were longer than reward.model_max_tokens."""


class RewardModel:
    """Scores completions of prompts, with the model in evaluation mode and in its own dtype.

    Args:
        config: A configuration that check_reward_model accepts.
        device: `cpu` or `cuda`.
    """

    def __init__(self, config: RewardFunctionConfig, device: str) -> None:
        self._device, self._most = torch.device(device), config.model_max_tokens
        self._tokenizer = AutoTokenizer.from_pretrained(
            config.model_path, padding_side="right", trust_remote_code=False
        )
        model = AutoModelForSequenceClassification.from_pretrained(config.model_path, trust_remote_code=False)
        if self._tokenizer.pad_token_id is not None:
            model.config.pad_token_id = self._tokenizer.pad_token_id
        self._model = model.eval().to(self._device)

    def score(self, prompts: list[str], completions: list[str]) -> ModelScores:
        """Score completions of prompts; the logit of the only label is the reward."""
        texts = [self._text(p, c) for p, c in zip(prompts, completions, strict=True)]
        ids = self._tokenizer(texts, add_special_tokens=False)["input_ids"]
        kept = [each[-self._most :] for each in ids]
        # Without a padding token the classifier cannot find the end of a shorter text, so each text is its own batch.
        size = len(kept) if self._tokenizer.pad_token_id is not None else 1
        rewards = [r for begin in range(0, len(kept), size) for r in self._forward(kept[begin : begin + size])]
        return ModelScores(rewards=rewards, truncated=sum(len(each) > self._most for each in ids))

    @torch.no_grad()
    def _forward(self, ids: list[list[int]]) -> list[float]:
        batch = self._tokenizer.pad({"input_ids": ids}, padding=len(ids) > 1, return_tensors="pt")
        tensors = {name: batch[name].to(self._device) for name in ("input_ids", "attention_mask")}
        return self._model(**tensors).logits[:, 0].float().tolist()

    def _text(self, prompt: str, completion: str) -> str:
        if self._tokenizer.chat_template is None:
            return prompt + completion
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
        return str(self._tokenizer.apply_chat_template(turns, tokenize=False))


def check_reward_model(config: RewardFunctionConfig) -> None:
    """Check a reward model before any actor is started.

    Raises:
        ConfigError: The model or its tokenizer cannot be read, the tokenizer is empty, or the classifier does not
            have exactly one label.
    """
    path = config.model_path
    try:
        labels = AutoConfig.from_pretrained(path).num_labels
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"reward.model_path={path}: no model with a tokenizer can be read there ({error}). Give the folder or the "
            "hub id of a sequence classifier."
        ) from error
    if not len(tokenizer):
        raise ConfigError(
            f"reward.model_path={path}: the tokenizer there has no tokens. Copy the model's whole folder."
        )
    if labels != 1:
        raise ConfigError(
            f"reward.model_path={path} is a classifier with {labels} labels. A reward model must have one "
            "(num_labels=1), whose logit is the reward."
        )
