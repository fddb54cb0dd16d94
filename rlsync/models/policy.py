"""The policy: a Hugging Face causal LM, as one module that returns log-probs of given targets."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel

from rlsync.config.kernels import KernelMode
from rlsync.kernels import ops
from rlsync.kernels.scores import target_scores
from rlsync.models.backbone import hidden_states
from rlsync.models.install import install
from rlsync.pack import Pack, PolicyOutput

_ITEMS_PER_CHUNK = 8192
"""Number of items whose log-probs [items, vocabulary] are computed at a time with kernels=native."""


class Policy(nn.Module):
    """A backbone with its LM head.

    This module is the FSDP root, so head and embedding, which are often one tensor, are gathered together.

    Args:
        model: a causal LM with fp32 master weights, before `fully_shard`.
        mode: `invariant` installs rlsync's ops, `native` keeps those of transformers.
        leaves: number of leaves of the reduction tree.
        dtype: compute dtype.
        temperature: temperature of the policy, by which the logits are divided.
    """

    def __init__(
        self, model: PreTrainedModel, *, mode: KernelMode, leaves: int, dtype: torch.dtype, temperature: float
    ) -> None:
        super().__init__()
        self.model = model
        self.mode = mode
        self.temperature = temperature
        if mode is KernelMode.invariant:
            install(model, leaves=leaves, dtype=dtype)

    def forward(self, pack: Pack, *, redraw: bool = False, entropy_grad: bool = False) -> PolicyOutput:
        """Score the items of a pack.

        Args:
            pack: the pack.
            redraw: draw the token of each item again.
            entropy_grad: compute a gradient of the entropy. With exact kernels the entropy always has one.
        """
        hidden = hidden_states(self.model, pack, self.mode)
        weight = self.model.get_output_embeddings().weight
        if self.mode is KernelMode.invariant:
            keys = {"seeds": pack.seeds, "positions": pack.item_positions} if redraw else {}
            scores = target_scores(hidden, weight, pack.targets, self.temperature, **keys)
            return PolicyOutput(**scores._asdict())
        parts = [
            self._native_head(hidden, weight, pack, items, redraw, entropy_grad) for items in _chunks(hidden.shape[0])
        ]
        return PolicyOutput(
            logprobs=torch.cat([p.logprobs for p in parts]),
            entropy=torch.cat([p.entropy for p in parts]),
            draws=torch.cat([p.draws for p in parts if p.draws is not None]) if redraw else None,
        )

    def _native_head(
        self, hidden: torch.Tensor, weight: torch.Tensor, pack: Pack, items: slice, redraw: bool, entropy_grad: bool
    ) -> PolicyOutput:
        logits = torch.nn.functional.linear(hidden[items], weight).float()
        logprobs = torch.log_softmax(logits / self.temperature, dim=-1)
        with torch.set_grad_enabled(entropy_grad and torch.is_grad_enabled()):
            entropy = -(logprobs.exp() * logprobs).sum(-1)
        with torch.no_grad():
            draws = ops.draw(logprobs, pack.seeds[items], pack.item_positions[items]) if redraw else None
        chosen = logprobs.gather(-1, pack.targets[items, None])[:, 0]
        return PolicyOutput(logprobs=chosen, entropy=entropy, draws=draws)


def _chunks(items: int) -> list[slice]:
    return [slice(i, min(i + _ITEMS_PER_CHUNK, items)) for i in range(0, items, _ITEMS_PER_CHUNK)]
