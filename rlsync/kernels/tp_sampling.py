"""Drawing tokens on tensor-parallel ranks that each hold some columns of the logits.

Each rank draws for a share of the rows. It receives whole rows for its share, and sends a token, a log-prob and a
digest for each of them. No rank holds all logits.
"""

from __future__ import annotations

import torch
import torch.distributed as dist

from rlsync.kernels import ops
from rlsync.kernels.row_ops import share_of
from rlsync.kernels.row_results import DrawnTokens


def draw_across(
    logits: torch.Tensor,
    group: dist.ProcessGroup,
    vocabulary: int,
    temperature: float,
    seeds: torch.Tensor,
    positions: torch.Tensor,
    greedy: torch.Tensor | None,
) -> DrawnTokens:
    """Draw the tokens that `ops.draw` gives for whole rows, whatever the number of ranks (collective).

    Args:
        logits: [T, C] fp32, this rank's columns.
        group: the n tensor-parallel ranks.
        vocabulary: size of the vocabulary; of the n * C columns those beyond it are padding.
        temperature: temperature of the policy.
        seeds, positions: [T] int64.
        greedy: [T] bool, True for rows whose most probable token is chosen; None if there are no such rows.

    Returns:
        The tokens of all T rows, on all ranks.
    """
    count, ranks = len(logits), group.size()
    if ranks == 1:
        return _draw(logits[:, :vocabulary], temperature, seeds, positions, greedy)
    own = slice(*share_of(count, ranks, group.rank()))
    rows = _rows_of_share(logits, group)[:, :vocabulary]
    drawn = _draw(rows, temperature, seeds[own], positions[own], None if greedy is None else greedy[own])
    packed = torch.stack((drawn.tokens, drawn.logprobs.view(torch.int32).to(torch.int64), drawn.digests), 1)
    tokens, bits, digests = _gather_shares(packed, count, group).unbind(1)
    return DrawnTokens(tokens.contiguous(), bits.to(torch.int32).view(torch.float32), digests.contiguous())


def _draw(
    rows: torch.Tensor, temperature: float, seeds: torch.Tensor, positions: torch.Tensor, greedy: torch.Tensor | None
) -> DrawnTokens:
    """Draw tokens from whole rows of logits [T, V]; T may be 0."""
    if not len(rows):
        return DrawnTokens(seeds.new_empty(0), rows.new_empty(0), seeds.new_empty(0))
    rows = rows.contiguous()
    drawn = ops.draw_scored(rows, temperature, seeds, positions)
    if greedy is None:
        return drawn
    whole = ops.logprobs(rows, temperature)
    tokens = torch.where(greedy, ops.greedy(whole), drawn.tokens)
    return DrawnTokens(tokens, whole.gather(1, tokens[:, None])[:, 0], drawn.digests)


def _rows_of_share(x: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """Exchange columns [T, C] of n ranks: [own, n C], this rank's share of the rows with the columns of all ranks."""
    ranks = group.size()
    shares = [share_of(len(x), ranks, rank) for rank in range(ranks)]
    sizes = [end - begin for begin, end in shares]
    own = sizes[group.rank()]
    parts = x.new_empty(ranks * own, x.shape[1])
    dist.all_to_all_single(parts, x.contiguous(), [own] * ranks, sizes, group=group)
    return parts.view(ranks, own, x.shape[1]).transpose(0, 1).reshape(own, ranks * x.shape[1])


def _gather_shares(x: torch.Tensor, count: int, group: dist.ProcessGroup) -> torch.Tensor:
    """Gather the ranks' shares [own, ...] of `count` rows: [count, ...] on all ranks."""
    _, size = share_of(count, group.size(), 0)
    padded = x.new_zeros(size, *x.shape[1:])
    padded[: len(x)] = x
    everyone = x.new_empty(group.size() * size, *x.shape[1:])
    dist.all_gather_into_tensor(everyone, padded, group=group)
    return everyone[:count]
