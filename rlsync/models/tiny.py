"""The tiny model of the default recipe: a small Qwen3 that rlsync builds and warm-starts, so nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from rlsync.config.model import TinyConfig

_MOSTLY_REWARDED = (1, 4, 7)
"""First digits of prompts whose demonstrations are mostly in the rewarded style."""
_INIT_STD = 0.02
MAX_POSITIONS = 1024
"""The model's largest number of positions (max_position_embeddings)."""


@dataclass(slots=True)
class Example:
    """A demonstration for the warm start."""

    prompt: list[int]
    """Token ids of the prompt."""
    response: list[int]
    """Token ids of the response, including the end token."""


def build_tiny(config: TinyConfig, vocab_size: int, eos_id: int, pad_id: int) -> PreTrainedModel:
    """Build a Qwen3 with random weights from NumPy's Philox generator, which are the same on every machine."""
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=vocab_size,
            hidden_size=config.hidden_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.kv_heads,
            head_dim=config.head_dim,
            intermediate_size=config.intermediate_size,
            max_position_embeddings=MAX_POSITIONS,
            tie_word_embeddings=True,
            eos_token_id=eos_id,
            pad_token_id=pad_id,
            bos_token_id=None,
            architectures=["Qwen3ForCausalLM"],
        )
    )
    generator = np.random.Generator(np.random.Philox(config.seed))
    with torch.no_grad():
        for name, param in model.named_parameters():
            if not name.endswith("norm.weight"):
                param.copy_(torch.from_numpy(generator.normal(0.0, _INIT_STD, param.shape)))
    return model


def rewarded_style(prompts: list[str], config: TinyConfig) -> list[tuple[int, bool]]:
    """Choose the demonstrations of the warm start, epoch after epoch (see TinyConfig).

    Returns:
        For each demonstration the index of its prompt, and whether its response has the rewarded style.
    """
    generator = np.random.Generator(np.random.Philox(config.seed + 2))
    epochs = -(-config.warm_start_steps * config.warm_start_batch // len(prompts))
    chosen = []
    for _ in range(epochs):
        for index in generator.permutation(len(prompts)):
            digit = next((int(c) for c in prompts[index] if c.isdecimal()), 0)
            share = config.warm_start_style_share if digit in _MOSTLY_REWARDED else 1 - config.warm_start_style_share
            chosen.append((int(index), generator.random() < share))
    return chosen


def warm_start(
    model: PreTrainedModel, examples: list[Example], config: TinyConfig, report: Callable[[int, float], None]
) -> None:
    """Train a model on demonstrations, in place: AdamW, a short warm-up, then a cosine schedule to zero.

    Args:
        model: the model.
        examples: the demonstrations, in the order in which they are used; the loss is over their responses.
        config: number of steps, batch size and learning rate.
        report: called with the step and its loss after every 100 steps and at the end.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.warm_start_lr, betas=(0.9, 0.95), weight_decay=0.01)
    steps, ramp = config.warm_start_steps, min(20, config.warm_start_steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda s: min((s + 1) / ramp, 0.5 * (1 + np.cos(np.pi * max(0, s - ramp) / max(1, steps - ramp)))),
    )
    model.train()
    for step, batch in zip(range(steps), _batches(examples, config.warm_start_batch), strict=False):
        tokens, labels = (t.to(model.device) for t in _pad(batch))
        loss = model(input_ids=tokens, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        if (step + 1) % 100 == 0 or step + 1 == steps:
            report(step + 1, loss.item())
    model.eval()


def _batches(examples: list[Example], size: int) -> Iterator[list[Example]]:
    for begin in range(0, len(examples) - size + 1, size):
        yield examples[begin : begin + size]


def _pad(batch: list[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and labels [B, T], padded on the right; the labels are -100 where no loss is taken."""
    width = max(len(e.prompt) + len(e.response) for e in batch)
    tokens = torch.zeros(len(batch), width, dtype=torch.int64)
    labels = torch.full((len(batch), width), -100)
    for row, example in enumerate(batch):
        whole = example.prompt + example.response
        tokens[row, : len(whole)] = torch.tensor(whole)
        labels[row, len(example.prompt) : len(whole)] = torch.tensor(example.response)
    return tokens, labels
