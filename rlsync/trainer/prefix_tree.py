"""Lays out sequences as rows of a pack: end to end, or as a tree that stores every shared prefix once.

DeFT (arXiv 2404.00242) uses such trees for decoding. Here attention reads keys in the order of their logical positions,
so a row has the same bits in both layouts.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence

from rlsync.kernels.key_paths import KeyPaths, PathChunk

_CHUNK_KEYS = 32768
"""Largest number of keys of a chunk of paths; a longer path is a chunk of its own. The backward pass on a GPU copies
the keys and values of a chunk, and their gradients."""


@dataclass(kw_only=True, slots=True)
class Layout:
    """The rows of a pack for some sequences. R rows and G segments; the first four fields are as in `Pack`."""

    tokens: torch.Tensor
    """[R] int64."""
    positions: torch.Tensor
    """[R] int64."""
    starts: torch.Tensor
    """[G + 1] int64."""
    paths: KeyPaths | None
    """None if the sequences lie end to end."""
    rows: list[torch.Tensor]
    """[T] int64 for each sequence: the rows of its tokens."""


def trie_order(sequences: Sequence[torch.Tensor]) -> list[int]:
    """Indices of int64 sequences, in an order in which sequences with a common prefix are neighbours.

    A sequence that is a prefix of another comes before it. Equal sequences keep their order.
    """
    keys = [sequence.numpy().tobytes() for sequence in sequences]
    return sorted(range(len(sequences)), key=keys.__getitem__)


def common_prefix(a: torch.Tensor, b: torch.Tensor) -> int:
    """Number of leading tokens that two sequences have in common."""
    n = min(a.numel(), b.numel())
    differ = (a[:n] != b[:n]).nonzero()
    return int(differ[0]) if len(differ) else n


def lay_end_to_end(sequences: list[torch.Tensor]) -> Layout:
    """Lay out sequences end to end, each as one segment."""
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
    """Lay out sequences as a tree that stores every shared prefix once; end to end if nothing is shared."""
    rows = _shared_rows(sequences)
    size = 1 + max(int(own[-1]) for own in rows)
    if size == sum(sequence.numel() for sequence in sequences):
        return lay_end_to_end(sequences)
    tokens, positions, parents, owners = torch.zeros(4, size, dtype=torch.int64)
    for index, (sequence, own) in enumerate(zip(sequences, rows, strict=True)):
        tokens[own] = sequence
        positions[own] = torch.arange(own.numel())
        parents[own] = torch.cat((torch.tensor([-1]), own[:-1]))
        owners[own] = index  # of several sequences that share the row, the last one stays
    children = torch.bincount(parents[parents >= 0], minlength=size)
    begins = torch.ones(size, dtype=torch.bool)
    begins[1:] = (parents[1:] != torch.arange(size - 1)) | (children[:-1] > 1)
    starts = torch.cat((begins.nonzero()[:, 0], torch.tensor([size])))
    last = starts[1:] - 1
    paths = [rows[index][: at + 1] for index, at in zip(owners[last].tolist(), positions[last].tolist(), strict=True)]
    keys = _key_paths(starts.tolist(), paths)
    return Layout(tokens=tokens, positions=positions, starts=starts, paths=keys, rows=rows)


def _shared_rows(sequences: list[torch.Tensor]) -> list[torch.Tensor]:
    """[T] rows of each sequence: those that it shares with its predecessor in trie order, then new ones."""
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
