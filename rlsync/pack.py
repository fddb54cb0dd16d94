"""What one forward pass of the trainer reads and gives: sequences without padding, and their scored tokens.

Shapes: R rows of a pack, G segments, S sequences, N scored tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch

from rlsync.kernels.key_paths import KeyPaths


@dataclass(slots=True, kw_only=True)
class Pack:
    """Sequences without padding, and the tokens of them that are scored.

    The rows are what the model forwards. In a plain pack the sequences lie end to end, and each is one segment. Where
    sequences share prefixes the rows are a tree: every shared prefix is there once, a segment is a run of rows without
    a branch, and `paths` says what its rows read. An item is one token that the model sampled: one row predicts it,
    and a row before a branch predicts several. Items lie sequence after sequence, in the order of their tokens.
    A pack has at least one item, so that it runs what the others run on all FSDP ranks; one that has nothing to score
    holds one outside the mask.
    """

    tokens: torch.Tensor
    """[R] int64."""
    positions: torch.Tensor
    """[R] int64: position within the sequence, or within all that share the row."""
    starts: torch.Tensor
    """[G + 1] int64: offsets of the segments."""
    longest: int
    """Rows of the longest segment."""
    paths: KeyPaths | None
    """None in a plain pack."""
    sequence_ids: torch.Tensor
    """[S] int64: index of each sequence in the step; -1 for filler."""
    lengths: torch.Tensor
    """[S] int64: tokens of each sequence."""
    rows: torch.Tensor
    """[N] int64: the row that predicts the item."""
    sequences: torch.Tensor
    """[N] int64: the sequence that the item is of, 0 <= s < S."""
    targets: torch.Tensor
    """[N] int64: the item's token."""
    mask: torch.Tensor
    """[N] bool: the item is compared; False only in filler."""
    trained: torch.Tensor
    """[N] bool: the item enters the losses and their statistics; a part of the mask, without samples that have no
    reward."""
    rollout_logprobs: torch.Tensor
    """[N] float32 decode-time log-prob of the target; 0 outside the mask."""
    advantages: torch.Tensor
    """[N] float32."""
    seeds: torch.Tensor
    """[N] int64: the seed of the sequence's request."""
    versions: torch.Tensor
    """[N] int32: version of the weights that sampled the target; -1 outside the mask."""
    old_logprobs: torch.Tensor | None = None
    """[N] the trainer's own log-probs at the sampler's weights, where truncated importance sampling asks for them;
    None: the rollout's stand for them."""
    old_values: torch.Tensor | None = None
    """[N] float32 critic's values of the rows before the step; None without a critic, as below."""
    returns: torch.Tensor | None = None
    """[N] float32."""

    @property
    def item_positions(self) -> torch.Tensor:
        """[N] int64: position of the row that predicts each item, one before the item's own."""
        return self.positions.index_select(0, self.rows)

    @property
    def rows_saved(self) -> int:
        """Rows that the sequences would have had apart, beyond those of the pack."""
        return int(self.lengths.sum()) - self.tokens.numel()

    def to(self, device: torch.device) -> Pack:
        """A copy with all tensors on `device`; the pack itself where they are there."""
        if self.tokens.device == device:
            return self
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        moved = {name: part.to(device) for name, part in parts.items() if isinstance(part, torch.Tensor | KeyPaths)}
        return replace(self, **moved)  # type: ignore[arg-type]


@dataclass(slots=True, kw_only=True)
class MinibatchSize:
    """What a minibatch holds over all ranks: the losses are normalised by it."""

    tokens: int
    """Tokens that are trained on."""
    sequences: int
    """Sequences that hold them."""


@dataclass(slots=True, kw_only=True)
class PolicyOutput:
    """Per item of a pack, fp32."""

    logprobs: torch.Tensor
    """[N]: log-prob of the target."""
    entropy: torch.Tensor
    """[N]: entropy of the row's distribution, in nats; carries a gradient where the pass was asked for it."""
    draws: torch.Tensor | None = None
    """[N] int64: the token drawn again from the row, the item's seed and the row's position."""
