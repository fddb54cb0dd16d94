"""Lays out samples as packs, with the same number of packs on every rank."""

from __future__ import annotations

import itertools

import torch

from rlsync.pack import MinibatchSize, Pack
from rlsync.samples import Rollout, TrainSample
from rlsync.trainer.balance import balance, balance_in_order
from rlsync.trainer.prefix_tree import common_prefix, lay_as_tree, lay_end_to_end, trie_order

_WORTH_A_TREE = 1 / 16
"""Prefix trees are used if they save at least this share of a minibatch's rows. Attention is a little slower in a tree,
because it reads keys through a table."""


def pack_samples(samples: list[TrainSample], ids: list[int], *, share_prefixes: bool = False) -> Pack:
    """Lay out samples as one pack.

    Args:
        samples: the S samples.
        ids: [S] index of each sample in the step; -1 makes it filler.
        share_prefixes: store prefixes that samples share once, as a prefix tree.
    """
    rollouts = [sample.rollout for sample in samples]
    layout = (lay_as_tree if share_prefixes else lay_end_to_end)([rollout.tokens for rollout in rollouts])
    items = [_items(sample, real=i >= 0) for sample, i in zip(samples, ids, strict=True)]
    if not any(at.numel() for at in items):
        items[0] = torch.tensor([0])  # an item outside the mask, since no row predicts the first token
    counts = torch.tensor([at.numel() for at in items])
    picked = list(zip(samples, items, strict=True))
    values = [(sample.value, at) for sample, at in picked if sample.value is not None]
    mask = torch.cat(items) > 0
    return Pack(
        tokens=layout.tokens,
        positions=layout.positions,
        starts=layout.starts,
        longest=int(layout.starts.diff().max()),
        paths=layout.paths,
        sequence_ids=torch.tensor(ids),
        lengths=torch.tensor([rollout.tokens.numel() for rollout in rollouts]),
        rows=torch.cat([rows[at - 1] for rows, at in zip(layout.rows, items, strict=True)]),
        sequences=torch.arange(len(samples)).repeat_interleave(counts),
        targets=torch.cat([sample.rollout.tokens[at] for sample, at in picked]),
        mask=mask,
        trained=mask & torch.tensor([sample.trained for sample in samples]).repeat_interleave(counts),
        rollout_logprobs=torch.cat([sample.rollout.logprobs[at] for sample, at in picked]),
        rollout_digests=_digests(rollouts, items),
        advantages=torch.cat([_advantages(sample, at) for sample, at in picked]),
        seeds=torch.tensor([rollout.seed for rollout in rollouts]).repeat_interleave(counts),
        versions=torch.cat([sample.rollout.weight_version[at] for sample, at in picked]),
        old_values=torch.cat([value.old[at] for value, at in values]) if values else None,
        returns=torch.cat([value.returns[at] for value, at in values]) if values else None,
    )


def unpack_items(pack: Pack, values: torch.Tensor) -> dict[int, torch.Tensor]:
    """Distribute values of a pack's items to its sequences.

    Args:
        pack: the pack.
        values: [N], one value for each item.

    Returns:
        [T] for each sequence, by sequence id, on the CPU; 0 at tokens that are not scored. Filler is left out.
    """
    values, mask, sequences = (t.cpu() for t in (values, pack.mask, pack.sequences))
    at = (pack.item_positions + 1).cpu()
    found: dict[int, torch.Tensor] = {}
    for index, (name, length) in enumerate(zip(pack.sequence_ids.tolist(), pack.lengths.tolist(), strict=True)):
        if name >= 0:
            own = mask & (sequences == index)
            found[name] = values.new_zeros(length).index_copy(0, at[own], values[own])
    return found


def plan_packs(
    samples: list[TrainSample], *, ranks: int, minibatches: int, micro_batch_tokens: int, share_prefixes: bool = False
) -> list[list[list[Pack]]]:
    """Lay out the samples of a step as packs.

    Minibatches take the samples in order. Within a minibatch rows are balanced over the packs, and every rank has the
    same number of packs, since FSDP's collectives would hang otherwise. If prefix trees save enough rows, samples with
    a common prefix share a pack as far as `micro_batch_tokens` allows.

    Args:
        samples: the samples of the step.
        ranks: number of FSDP ranks.
        minibatches: number of minibatches.
        micro_batch_tokens: largest number of rows of a pack; a longer sequence has a pack of its own.
        share_prefixes: allow prefix trees.

    Returns:
        The packs as [minibatch][rank][micro-batch].
    """
    plans = []
    for begin, end in itertools.pairwise(minibatch_bounds(len(samples), minibatches)):
        sequences = [sample.rollout.tokens for sample in samples[begin:end]]
        bins, trees = _bins(sequences, ranks, micro_batch_tokens, share_prefixes)
        packs = [_pack_bin(samples, [begin + i for i in members], filler=begin, trees=trees) for members in bins]
        plans.append([packs[rank::ranks] for rank in range(ranks)])
    return plans


def minibatch_bounds(samples: int, minibatches: int) -> list[int]:
    """Indices of the first sample of each minibatch, and the number of samples: [minibatches + 1]."""
    return [i * samples // minibatches for i in range(minibatches + 1)]


def minibatch_size(ranks: list[list[Pack]]) -> MinibatchSize:
    """Size of a minibatch of packs [rank][micro-batch]; filler and samples without a reward do not count."""
    packs = [pack for rank in ranks for pack in rank]
    return MinibatchSize(
        tokens=sum(int(pack.trained.sum()) for pack in packs),
        sequences=sum(pack.sequences[pack.trained].unique().numel() for pack in packs),
    )


def _bins(sequences: list[torch.Tensor], ranks: int, budget: int, share_prefixes: bool) -> tuple[list[list[int]], bool]:
    """Indices of the sequences of each pack, and whether the packs are trees."""
    lengths = [sequence.numel() for sequence in sequences]
    if share_prefixes:
        order = trie_order(sequences)
        shared = [0, *(common_prefix(sequences[a], sequences[b]) for a, b in itertools.pairwise(order))]
        if sum(shared) >= _WORTH_A_TREE * sum(lengths):
            ordered = balance_in_order([lengths[i] for i in order], shared, ranks, budget)
            return [sorted(order[i] for i in members) for members in ordered], True
    return balance(lengths, ranks, budget), False


def _pack_bin(samples: list[TrainSample], members: list[int], *, filler: int, trees: bool) -> Pack:
    """Pack the samples `members`; if there are none, the sample `filler` as filler."""
    if members:
        return pack_samples([samples[i] for i in members], members, share_prefixes=trees)
    return pack_samples([samples[filler]], [-1])


def _items(sample: TrainSample, *, real: bool) -> torch.Tensor:
    """[N] int64: positions of the sampled tokens, without a sequence's first token, which no row predicts."""
    wanted = sample.rollout.sampled[1:] & real
    return wanted.nonzero()[:, 0] + 1


def _digests(rollouts: list[Rollout], items: list[torch.Tensor]) -> torch.Tensor | None:
    """[N] int64: digests of the rows of the tokens `items` of each rollout; None if a rollout has none."""
    pairs = [(rollout.row_digests, at) for rollout, at in zip(rollouts, items, strict=True)]
    found = [digests[at] for digests, at in pairs if digests is not None]
    return torch.cat(found) if len(found) == len(rollouts) else None


def _advantages(sample: TrainSample, at: torch.Tensor) -> torch.Tensor:
    """[N] float32: advantages of the tokens `at`; 0 for a sample without advantages."""
    return torch.zeros(at.numel()) if sample.advantage is None else sample.advantage[at].float()
