"""Samples into packs: sequences end to end, no padding, the same number of packs on every rank."""

from __future__ import annotations

import heapq
import itertools

import torch

from rlsync.types import MinibatchSize, Pack, TrainSample


def pack_samples(samples: list[TrainSample], ids: list[int]) -> Pack:
    """Lay samples end to end. `ids` [S] name them within the step; -1 makes a sample filler that trains nothing."""
    rollouts = [sample.rollout for sample in samples]
    values = [sample.value for sample in samples if sample.value is not None]
    lengths = torch.tensor([r.tokens.numel() for r in rollouts])
    real = torch.tensor([i >= 0 for i in ids])
    mask = torch.cat([_shift(r.sampled, False) for r in rollouts])
    return Pack(
        tokens=torch.cat([r.tokens for r in rollouts]),
        positions=torch.cat([torch.arange(int(n)) for n in lengths]),
        starts=torch.cat((torch.zeros(1, dtype=torch.int64), lengths.cumsum(0))),
        targets=torch.cat([_shift(r.tokens, 0) for r in rollouts]),
        mask=mask & real.repeat_interleave(lengths),
        rollout_logprobs=torch.cat([_shift(r.logprobs, 0.0) for r in rollouts]),
        advantages=torch.cat([_advantages(s) for s in samples]),
        seeds=torch.tensor([r.seed for r in rollouts]).repeat_interleave(lengths),
        versions=torch.cat([_shift(r.weight_version, -1) for r in rollouts]),
        sequence_ids=torch.tensor(ids),
        longest=int(lengths.max()),
        old_values=torch.cat([_shift(v.old, 0.0) for v in values]) if values else None,
        returns=torch.cat([_shift(v.returns, 0.0) for v in values]) if values else None,
    )


def unpack_rows(pack: Pack, rows: torch.Tensor) -> dict[int, torch.Tensor]:
    """Row-wise [T] of a pack -> each sequence's own [T] on the CPU, by its id: token t has what row t - 1 predicts.

    The first token, which no row predicts, has 0. Filler is left out.
    """
    parts = rows.cpu().split(pack.starts.diff().tolist())
    named = zip(pack.sequence_ids.tolist(), parts, strict=True)
    return {i: torch.cat((part.new_zeros(1), part[:-1])) for i, part in named if i >= 0}


def plan_packs(
    samples: list[TrainSample], *, ranks: int, minibatches: int, micro_batch_tokens: int
) -> list[list[list[Pack]]]:
    """Packs as [minibatch][rank][micro-batch]. Every rank gets the same number in a minibatch (FSDP would hang).

    Minibatches take the samples in their order; within one, samples are balanced by tokens over all packs.
    """
    bounds = [i * len(samples) // minibatches for i in range(minibatches + 1)]
    plans = []
    for begin, end in itertools.pairwise(bounds):
        lengths = [sample.rollout.tokens.numel() for sample in samples[begin:end]]
        bins = _balance(lengths, ranks, micro_batch_tokens)
        packs = [_pack_bin(samples, [begin + i for i in members], filler=begin) for members in bins]
        plans.append([packs[rank::ranks] for rank in range(ranks)])
    return plans


def minibatch_size(ranks: list[list[Pack]]) -> MinibatchSize:
    """What a minibatch's packs, [rank][micro-batch], hold; filler does not count."""
    packs = [pack for rank in ranks for pack in rank]
    return MinibatchSize(
        tokens=sum(int(pack.mask.sum()) for pack in packs),
        sequences=sum(int((pack.sequence_ids >= 0).sum()) for pack in packs),
    )


def _pack_bin(samples: list[TrainSample], members: list[int], filler: int) -> Pack:
    if members:
        return pack_samples([samples[i] for i in members], members)
    return pack_samples([samples[filler]], [-1])


def _balance(lengths: list[int], ranks: int, budget: int) -> list[list[int]]:
    """Fewest equal multiples of `ranks` bins whose tokens stay in the budget (a longer sample is alone in its bin)."""
    count = max(1, -(-sum(lengths) // (budget * ranks)))
    while True:
        bins = _longest_first(lengths, count * ranks)
        if all(len(b) <= 1 or sum(lengths[i] for i in b) <= budget for b in bins):
            return bins
        count += 1


def _longest_first(lengths: list[int], bins: int) -> list[list[int]]:
    members: list[list[int]] = [[] for _ in range(bins)]
    heap = [(0, b) for b in range(bins)]
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        load, b = heapq.heappop(heap)
        members[b].append(index)
        heapq.heappush(heap, (load + lengths[index], b))
    return [sorted(b) for b in members]


def _advantages(sample: TrainSample) -> torch.Tensor:
    """[T] float32, row-wise."""
    if isinstance(sample.advantage, torch.Tensor):
        return _shift(sample.advantage, 0.0)
    return torch.full((sample.rollout.tokens.numel(),), sample.advantage, dtype=torch.float32)


def _shift(x: torch.Tensor, last: float | bool) -> torch.Tensor:
    """Row t holds what belongs to the token that it predicts, t + 1."""
    return torch.cat((x[1:], torch.full((1,), last, dtype=x.dtype)))
