"""How sequences lie in a pack: end to end, or as a tree in which every shared prefix is there once.

The idea at decode is DeFT's (arXiv 2404.00242). Here keys are read by logical position, so a row's bits do not know
which of the two its pack is.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence

from rlsync.kernels.key_paths import KeyPaths, PathChunk

_CHUNK_KEYS = 32768
"""Of a chunk of paths, at most (a longer path is its own): their keys and values are copied, and so are gradients."""


@dataclass(kw_only=True, slots=True)
class Layout:
    """Where the tokens of some sequences lie in a pack; R rows, G segments, as in Pack."""

    tokens: torch.Tensor
    """[R] int64."""
    positions: torch.Tensor
    """[R] int64."""
    starts: torch.Tensor
    """[G + 1] int64."""
    paths: KeyPaths | None
    """None where the sequences lie end to end."""
    rows: list[torch.Tensor]
    """The rows of each sequence's tokens, [T] int64."""


def trie_order(sequences: Sequence[torch.Tensor]) -> list[int]:
    """Indices of int64 sequences, in an order in which those with a common prefix are neighbours.

    A prefix of another sequence comes before it; equal ones keep their order.
    """
    keys = [sequence.numpy().tobytes() for sequence in sequences]
    return sorted(range(len(sequences)), key=keys.__getitem__)


def common_prefix(a: torch.Tensor, b: torch.Tensor) -> int:
    """Tokens that two sequences have in common from the start."""
    n = min(a.numel(), b.numel())
    differ = (a[:n] != b[:n]).nonzero()
    return int(differ[0]) if len(differ) else n


def lay_end_to_end(sequences: list[torch.Tensor]) -> Layout:
    """One segment for each sequence, in their order."""
    lengths = [sequence.numel() for sequence in sequences]
    starts = torch.tensor([0, *itertools.accumulate(lengths)])
    return Layout(
        tokens=torch.cat(sequences),
        positions=torch.cat([torch.arange(n) for n in lengths]),
        starts=starts,
        paths=None,
        rows=[torch.arange(begin, end) for begin, end in itertools.pairwise(starts.tolist())],
    )


def lay_as_tree(sequences: list[torch.Tensor]) -> Layout:
    """Every shared prefix once; end to end where nothing is shared."""
    rows = _shared_rows(sequences)
    size = 1 + max(int(own[-1]) for own in rows)
    if size == sum(sequence.numel() for sequence in sequences):
        return lay_end_to_end(sequences)
    tokens, positions, parents, owners = torch.zeros(4, size, dtype=torch.int64)
    for index, (sequence, own) in enumerate(zip(sequences, rows, strict=True)):
        tokens[own] = sequence
        positions[own] = torch.arange(own.numel())
        parents[own] = torch.cat((torch.tensor([-1]), own[:-1]))
        owners[own] = index  # any that goes through the row
    children = torch.bincount(parents[parents >= 0], minlength=size)
    begins = torch.ones(size, dtype=torch.bool)
    begins[1:] = (parents[1:] != torch.arange(size - 1)) | (children[:-1] > 1)
    starts = torch.cat((begins.nonzero()[:, 0], torch.tensor([size])))
    last = starts[1:] - 1
    paths = [rows[index][: at + 1] for index, at in zip(owners[last].tolist(), positions[last].tolist(), strict=True)]
    keys = _key_paths(starts.tolist(), paths)
    return Layout(tokens=tokens, positions=positions, starts=starts, paths=keys, rows=rows)


def _shared_rows(sequences: list[torch.Tensor]) -> list[torch.Tensor]:
    """Rows of each sequence's tokens, depth first: what it shares with its neighbour in trie order, then new ones."""
    rows: dict[int, torch.Tensor] = {}
    size, before = 0, -1
    for index in trie_order(sequences):
        shared = common_prefix(sequences[before], sequences[index]) if rows else 0
        new = torch.arange(size, size + sequences[index].numel() - shared)
        rows[index] = torch.cat((rows[before][:shared], new)) if rows else new
        size, before = size + new.numel(), index
    return [rows[index] for index in range(len(sequences))]


def _key_paths(starts: list[int], paths: list[torch.Tensor]) -> KeyPaths:
    return KeyPaths(
        table=pad_sequence(paths, batch_first=True).to(torch.int32),
        lengths=torch.tensor([path.numel() for path in paths]),
        chunks=_chunks(starts, [path.numel() for path in paths]),
    )


def _chunks(starts: list[int], lengths: list[int]) -> list[PathChunk]:
    chunks: list[PathChunk] = []
    first, keys = 0, 0
    for segment, length in enumerate([*lengths, _CHUNK_KEYS + 1]):
        if keys and keys + length > _CHUNK_KEYS:
            rows = slice(starts[first], starts[segment])
            chunks.append(PathChunk(segments=slice(first, segment), rows=rows, keys=keys))
            first, keys = segment, 0
        keys += length
    return chunks
