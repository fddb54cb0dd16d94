"""Input and output of one forward pass of the trainer: sequences without padding, and their scored tokens.

Shapes: R rows of a pack, G segments, S sequences, N items (scored tokens).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch

from rlsync.kernels.key_paths import KeyPaths


@dataclass(slots=True, kw_only=True)
class Pack:
    """Sequences without padding, and those of their tokens that are scored.

    The model forwards the rows. In a plain pack the sequences lie end to end, and each of them is one segment. In a
    prefix tree every shared prefix is stored once: a segment is a run of rows without a branch, and `paths` lists the
    rows that each segment attends to.

    An item is one token that the model sampled. One row predicts it; a row that several sequences share predicts an
    item of each. Items are ordered by sequence, and within a sequence by position. Every pack has at least one item, so
    that all FSDP ranks run the same collectives. A pack without tokens to score has one item outside the mask.
    """

    tokens: torch.Tensor
    """[R] int64: token ids of the rows."""
    positions: torch.Tensor
    """[R] int64: position of each row in its sequence, which is the same in all sequences that share the row."""
    starts: torch.Tensor
    """[G + 1] int64: offsets of the segments."""
    longest: int
    """Number of rows of the longest segment."""
    paths: KeyPaths | None
    """The rows that each segment of a prefix tree attends to; None in a plain pack."""
    sequence_ids: torch.Tensor
    """[S] int64: index of each sequence in the step; -1 for filler."""
    lengths: torch.Tensor
    """[S] int64: number of tokens of each sequence."""
    rows: torch.Tensor
    """[N] int64: the row that predicts each item."""
    sequences: torch.Tensor
    """[N] int64: the sequence that each item belongs to, 0 <= s < S."""
    targets: torch.Tensor
    """[N] int64: token id of each item."""
    mask: torch.Tensor
    """[N] bool: True for items that the monitor compares; False only in filler."""
    trained: torch.Tensor
    """[N] bool: True for items that enter the losses and their statistics. These are the items of the mask whose
    sample has a reward."""
    rollout_logprobs: torch.Tensor
    """[N] float32: log-prob that each item had at decoding; 0 outside the mask."""
    rollout_digests: torch.Tensor | None
    """[N] int64: digest that the rollout recorded of each item's row of logits; None if the engines make none."""
    advantages: torch.Tensor
    """[N] float32: advantage of each item."""
    seeds: torch.Tensor
    """[N] int64: seed of the request of the item's sequence."""
    versions: torch.Tensor
    """[N] int32: version of the weights that sampled each item; -1 outside the mask."""
    old_logprobs: torch.Tensor | None = None
    """[N]: the trainer's own log-probs at the weights that sampled, which truncated importance sampling needs. If
    None, the rollout's log-probs are used."""
    old_values: torch.Tensor | None = None
    """[N] float32: the critic's values before the step; None without a critic."""
    returns: torch.Tensor | None = None
    """[N] float32: the targets of the critic's values; None without a critic."""

    @property
    def item_positions(self) -> torch.Tensor:
        """[N] int64: position of the row that predicts each item, which is one less than the item's own position."""
        return self.positions.index_select(0, self.rows)

    @property
    def rows_saved(self) -> int:
        """Number of rows that shared prefixes save: the sequences' tokens minus the pack's rows."""
        return int(self.lengths.sum()) - self.tokens.numel()

    def to(self, device: torch.device) -> Pack:
        """A copy with all tensors on `device`, or the pack itself if they are there already."""
        if self.tokens.device == device:
            return self
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        moved = {name: part.to(device) for name, part in parts.items() if isinstance(part, torch.Tensor | KeyPaths)}
        return replace(self, **moved)  # type: ignore[arg-type]


@dataclass(slots=True, kw_only=True)
class MinibatchSize:
    """Size of a minibatch over all ranks, by which the losses are normalised."""

    tokens: int
    """Number of tokens that are trained on."""
    sequences: int
    """Number of sequences with at least one such token."""


@dataclass(slots=True, kw_only=True)
class PolicyOutput:
    """The policy's results for the items of a pack."""

    logprobs: torch.Tensor
    """[N] float32: log-prob of each item's target."""
    entropy: torch.Tensor
    """[N] float32: entropy of the distribution of each item's row, in nats."""
    digests: torch.Tensor | None = None
    """[N] int64: digest of each item's row of logits; None with kernels=native."""
    draws: torch.Tensor | None = None
    """[N] int64: the tokens of a redraw, from each row, its item's seed and the row's position; None without one."""
