"""The dataclasses that cross boundaries between components and processes.

Shapes: T tokens of one sequence, R rows of a pack, S its sequences, N the tokens that it scores.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any

import torch


class Split(StrEnum):
    train = "train"
    warm_start = "warm_start"
    held_out = "held_out"


class FinishReason(StrEnum):
    stop = "stop"
    """The model sampled a stop token."""
    length = "length"
    """The response reached the token limit."""
    turns = "turns"
    """The conversation reached environment.max_turns."""
    error = "error"
    """The environment failed."""


@dataclass(slots=True, kw_only=True)
class Problem:
    """One task to solve: what the model reads, and what its scorer needs."""

    id: str
    """Stable across runs: a digest of the prompt."""
    prompt: str
    """User text, before any chat template."""
    answer: str
    metadata: dict[str, Any] = field(default_factory=dict)
    """The source's own record, handed to the scorer as it is."""
    part: str = ""
    """Name of the mixture's part that it is from; empty for data without parts."""
    origin: str = field(default="", compare=False)
    """Where its answer stands, row and column, for messages; empty for a problem that was made on the spot."""
    structured: bool = False
    """The answer was a list or an object in the data, and `answer` is its JSON text."""


@dataclass(slots=True, kw_only=True)
class RolloutRequest:
    prompt: list[int]
    """Token ids."""
    seed: int
    """0 <= seed < 2^63; with weights and prompt it determines the response."""
    max_tokens: int
    stop_ids: list[int]
    greedy: bool = False
    """Take the most probable token instead of drawing."""


@dataclass(slots=True, kw_only=True)
class Rollout:
    """A finished sequence, prompt and response, as the rollout engine produced it.

    Between the turns of a conversation stand tokens that were not sampled: the environment's.
    """

    tokens: torch.Tensor
    """[T] int64."""
    sampled: torch.Tensor
    """[T] bool: the model's own tokens."""
    logprobs: torch.Tensor
    """[T] float32: decode-time log-prob of each sampled token; 0 where not sampled."""
    weight_version: torch.Tensor
    """[T] int32: version of the weights that sampled each token; -1 where not sampled."""
    seed: int
    finish_reason: FinishReason

    @property
    def num_sampled(self) -> int:
        return int(self.sampled.sum())

    @property
    def response(self) -> list[int]:
        """The model's own tokens."""
        return self.tokens[self.sampled].tolist()

    @property
    def prompt_length(self) -> int:
        """Tokens before the first that was sampled."""
        return int(self.sampled.nonzero()[0])


@dataclass(slots=True, kw_only=True)
class Episode:
    """A rollout with what was said in it; of one turn where there is no environment."""

    rollout: Rollout
    turns: list[str]
    """Texts after the prompt, without special tokens: the model's and the environment's in turn, the model's first."""
    scored: str
    """What the reward functions read."""
    tool_calls: int = 0
    """Calls that the environment answered."""
    error: str | None = None
    """Why the environment failed, if it did."""

    @property
    def model_turns(self) -> int:
        return (len(self.turns) + 1) // 2


@dataclass(slots=True, kw_only=True)
class Score:
    """What a reward function said of one rollout."""

    reward: float | None
    """None where there is none: the reward function or the environment failed."""
    error: str | None = None
    """Why there is no reward."""
    parts: dict[str, float] = field(default_factory=dict)
    """Of a weighted sum: each function's own number, by name."""


@dataclass(slots=True, kw_only=True)
class ValueTarget:
    """What the critic's loss needs, at each sampled token; 0 where not sampled."""

    old: torch.Tensor
    """[T] float32: the value before the step of what the token was sampled after."""
    returns: torch.Tensor
    """[T] float32: what the value should be."""


@dataclass(slots=True, kw_only=True)
class TrainSample:
    """One rollout with what its loss needs."""

    rollout: Rollout
    advantage: float | torch.Tensor
    """One number for the whole response, or [T] float32 for each sampled token; 0 where not sampled."""
    value: ValueTarget | None = None
    """Where there is a critic to train."""
    trained: bool = True
    """False for a rollout without a reward: its tokens are compared, and enter no loss, statistic or critic target."""


@dataclass(slots=True, kw_only=True)
class KeyPaths:
    """What the segments of a prefix tree attend to: the rows from the tree's root to their own last, by position.

    G segments, P keys of the longest path.
    """

    table: torch.Tensor
    """[G, P] int32: rows of the pack; 0 beyond a path's end."""
    lengths: torch.Tensor
    """[G] int64: keys of each path, those of the segment itself included."""
    chunks: list[PathChunk]
    """All segments, in order: what the backward on a GPU takes at a time."""

    def to(self, device: torch.device) -> KeyPaths:
        """A copy with all tensors on `device`."""
        return replace(self, table=self.table.to(device), lengths=self.lengths.to(device))


@dataclass(slots=True, kw_only=True)
class PathChunk:
    """Consecutive segments, in numbers that the host knows."""

    segments: slice
    rows: slice
    """Of the pack: theirs."""
    keys: int
    """Of all their paths."""


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


@dataclass(slots=True, kw_only=True)
class TensorDigest:
    """A digest of a rectangle of one canonical (Hugging Face named) tensor."""

    name: str
    rows: tuple[int, int]
    columns: tuple[int, int]
    value: int
    """Position-keyed sum modulo 2^64: digests of disjoint parts add up to the whole's."""


@dataclass(slots=True, kw_only=True)
class ParamSpec:
    """A canonical tensor as it travels: compute dtype, Hugging Face name."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    """`bfloat16` or `float32`."""


@dataclass(slots=True, kw_only=True)
class ParityCounts:
    """What the monitor saw on some tokens; counts of disjoint sets of tokens merge."""

    tokens_sampled: int = 0
    tokens_compared: int = 0
    tokens_left_out_stale: int = 0
    """Sampled at other weights than the forward pass holds."""
    tokens_different: int = 0
    draws_compared: int = 0
    draws_different: int = 0
    nonfinite: int = 0
    max_abs_diff: float = 0.0
    max_ulp: int = 0
    k3_sum: float = 0.0
    """Sum over compared tokens of e^d - d - 1, d = trainer - rollout, in nats."""
    first_sequence: int = -1
    """Sequence id of the first divergent token, -1 if none."""
    first_position: int = -1
    """Its position in the sequence."""
    first_trainer: float = 0.0
    first_rollout: float = 0.0


@dataclass(slots=True, kw_only=True)
class CriticStats:
    """What one trainer rank reports of the critic's step; sums are over the rank's own tokens, in every epoch."""

    tokens: int = 0
    """Of the loss."""
    loss: float = 0.0
    """The rank's share, summed over minibatches."""
    clipped: int = 0
    """Tokens whose gradient the clip cut off."""
    grad_norm: float = 0.0
    learning_rate: float = 0.0
    updates: int = 0
    updates_skipped: int = 0
    """Left out because a gradient was not finite."""


@dataclass(slots=True, kw_only=True)
class StepStats:
    """What one trainer rank reports of a training step; sums are over the rank's own tokens, in every epoch."""

    tokens: int = 0
    """Rows forwarded, prompt and response; a shared prefix counts once."""
    tokens_saved: int = 0
    """Rows that shared prefixes spared."""
    loss_tokens: int = 0
    loss: float = 0.0
    """The rank's share of the objective, summed over minibatches."""
    entropy_sum: float = 0.0
    kl_sum: float = 0.0
    """Of the KL in the loss."""
    clipped: int = 0
    truncated: int = 0
    """Tokens whose importance weight reached algorithm.tis_cap."""
    ratio_max: float = 1.0
    ratio_min: float = 1.0
    first_ratio_max: float = 1.0
    """In the first minibatch of the first epoch, which runs at the sampler's weights."""
    first_ratio_min: float = 1.0
    grad_norm: float = 0.0
    learning_rate: float = 0.0
    micro_batches: int = 0
    minibatches: int = 0
    updates: int = 0
    """Optimiser steps taken."""
    updates_skipped: int = 0
    """Optimiser steps left out because a gradient was not finite."""
    seconds: float = 0.0
    peak_gpu_gib: float = 0.0
    """Most memory that the rank's tensors have held on its GPU; 0 on a CPU."""
    parity: ParityCounts = field(default_factory=ParityCounts)
    critic: CriticStats | None = None


@dataclass(slots=True, kw_only=True)
class Summary:
    """What the end of a run prints, and what summary.json holds."""

    steps: int = 0
    reward_first: float = 0.0
    reward_last: float = 0.0
    accuracy_before: float | None = None
    accuracy_after: float | None = None
    tokens_compared: int = 0
    tokens_different: int = 0
    draws_different: int = 0
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)
