"""Distributes sequences over packs of about equal size; the number of packs is a multiple of the number of ranks."""

from __future__ import annotations

import heapq


def balance(lengths: list[int], ranks: int, budget: int) -> list[list[int]]:
    """Distribute sequences over the fewest bins, in a multiple of `ranks`, that hold at most `budget` tokens each.

    A sequence longer than the budget has a bin of its own.

    Args:
        lengths: number of tokens of each sequence.
        ranks: the number of bins is a multiple of it.
        budget: largest number of tokens of a bin.

    Returns:
        The indices of the sequences in each bin, in increasing order.
    """
    count = max(1, -(-sum(lengths) // (budget * ranks)))
    while True:
        bins = _longest_first(lengths, count * ranks)
        if all(len(b) <= 1 or sum(lengths[i] for i in b) <= budget for b in bins):
            return bins
        count += 1


def balance_in_order(lengths: list[int], shared: list[int], ranks: int, budget: int) -> list[list[int]]:
    """Like `balance`, but keep the order of the sequences, so that those with a common prefix stay together.

    The number of bins is the smallest multiple of `ranks` that suffices. Among the ways to cut the sequences into that
    many bins, one is taken whose largest bin is smallest. Bins at the end may be empty.

    Args:
        lengths: number of tokens of each sequence.
        shared: number of tokens that each sequence shares with the one before it; in the same bin they add no rows.
        ranks: the number of bins is a multiple of it.
        budget: largest number of rows of a bin.

    Returns:
        The indices of the sequences in each bin.
    """
    count = -(-len(_cut(lengths, shared, budget)) // ranks) * ranks
    low, high = 1, budget
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if len(_cut(lengths, shared, middle)) <= count else (middle + 1, high)
    bins = _cut(lengths, shared, low)
    return bins + [[] for _ in range(count - len(bins))]


def _cut(lengths: list[int], shared: list[int], most: int) -> list[list[int]]:
    """Fill one bin after another with at most `most` rows; a longer sequence has a bin of its own."""
    bins: list[list[int]] = []
    load = 0
    for index, (length, common) in enumerate(zip(lengths, shared, strict=True)):
        if not bins or load + length - common > most:
            bins.append([])
            load, common = 0, 0
        bins[-1].append(index)
        load += length - common
    return bins


def _longest_first(lengths: list[int], bins: int) -> list[list[int]]:
    """Put each sequence, the longest first, into the bin with the fewest tokens so far."""
    members: list[list[int]] = [[] for _ in range(bins)]
    heap = [(0, b) for b in range(bins)]
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        load, b = heapq.heappop(heap)
        members[b].append(index)
        heapq.heappush(heap, (load + lengths[index], b))
    return [sorted(b) for b in members]
