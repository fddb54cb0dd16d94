"""Tokens drawn by ranks that each have some columns of the logits: a rank draws for a share of the rows.

A rank gets the rows of its share whole, and passes on a token and a log-prob of each. So no rank holds all logits.
"""

from __future__ import annotations

import torch
import torch.distributed as dist

from rlsync.kernels import ops
from rlsync.kernels.row_ops import share_of


def draw_across(
    logits: torch.Tensor,
    group: dist.ProcessGroup,
    vocabulary: int,
    temperature: float,
    seeds: torch.Tensor,
    positions: torch.Tensor,
    greedy: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What `ops.draw` takes of the log-probs of whole rows, whatever the number of ranks (collective).

    Args:
        logits: [T, C] fp32, columns of each of the n ranks.
        vocabulary: columns that count, of n C.
        seeds, positions: [T] int64.
        greedy: [T] bool, rows whose most probable token is taken; None: there is none.
    Returns:
        Tokens [T] int64 and their log-probs [T] fp32, on all ranks.
    """
    count, ranks = len(logits), group.size()
    if ranks == 1:
        return _draw(logits[:, :vocabulary], temperature, seeds, positions, greedy)
    own = slice(*share_of(count, ranks, group.rank()))
    rows = _rows_of_share(logits, group)[:, :vocabulary]
    tokens, logprobs = _draw(rows, temperature, seeds[own], positions[own], None if greedy is None else greedy[own])
    packed = torch.stack((tokens, logprobs.view(torch.int32).to(torch.int64)), 1)
    tokens, bits = _gather_shares(packed, count, group).unbind(1)
    return tokens.contiguous(), bits.to(torch.int32).view(torch.float32)


def _draw(
    rows: torch.Tensor, temperature: float, seeds: torch.Tensor, positions: torch.Tensor, greedy: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of whole rows of logits [T, V]; T may be 0."""
    if not len(rows):
        return seeds.new_empty(0), rows.new_empty(0)
    rows = rows.contiguous()
    tokens, logprobs = ops.draw_scored(rows, temperature, seeds, positions)
    if greedy is not None:
        whole = ops.logprobs(rows, temperature)
        tokens = torch.where(greedy, ops.greedy(whole), tokens)
        logprobs = whole.gather(1, tokens[:, None])[:, 0]
    return tokens, logprobs


def _rows_of_share(x: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """[T, C], columns of each of n ranks -> [own, n C]: this rank's share of the rows, with the columns of all."""
    ranks = group.size()
    shares = [share_of(len(x), ranks, rank) for rank in range(ranks)]
    sizes = [end - begin for begin, end in shares]
    own = sizes[group.rank()]
    parts = x.new_empty(ranks * own, x.shape[1])
    dist.all_to_all_single(parts, x.contiguous(), [own] * ranks, sizes, group=group)
    return parts.view(ranks, own, x.shape[1]).transpose(0, 1).reshape(own, ranks * x.shape[1])


def _gather_shares(x: torch.Tensor, count: int, group: dist.ProcessGroup) -> torch.Tensor:
    """[own, ...], a share of `count` rows, on each rank -> [count, ...] on all."""
    _, size = share_of(count, group.size(), 0)
    padded = x.new_zeros(size, *x.shape[1:])
    padded[: len(x)] = x
    everyone = x.new_empty(group.size() * size, *x.shape[1:])
    dist.all_gather_into_tensor(everyone, padded, group=group)
    return everyone[:count]
