"""Which sequences go together in a pack: few packs of few rows more than the others, a multiple of the ranks."""

from __future__ import annotations

import heapq


def balance(lengths: list[int], ranks: int, budget: int) -> list[list[int]]:
    """Fewest equal multiples of `ranks` bins whose tokens stay in the budget (a longer sample is alone in its bin)."""
    count = max(1, -(-sum(lengths) // (budget * ranks)))
    while True:
        bins = _longest_first(lengths, count * ranks)
        if all(len(b) <= 1 or sum(lengths[i] for i in b) <= budget for b in bins):
            return bins
        count += 1


def balance_in_order(lengths: list[int], shared: list[int], ranks: int, budget: int) -> list[list[int]]:
    """As `balance`, of sequences that stay in their order, so that those with a common prefix stay together.

    The bins are a multiple of `ranks`, the fewest; of the ways to cut the order into so many, one whose largest bin is
    smallest. Bins at the end may be empty.

    Args:
        shared: tokens that each sequence shares with the one before it, which cost nothing in the same bin.
    """
    count = -(-len(_cut(lengths, shared, budget)) // ranks) * ranks
    low, high = 1, budget
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if len(_cut(lengths, shared, middle)) <= count else (middle + 1, high)
    bins = _cut(lengths, shared, low)
    return bins + [[] for _ in range(count - len(bins))]


def _cut(lengths: list[int], shared: list[int], most: int) -> list[list[int]]:
    """Consecutive bins, each as long as it can be with at most `most` rows (a longer sequence is alone)."""
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
    members: list[list[int]] = [[] for _ in range(bins)]
    heap = [(0, b) for b in range(bins)]
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        load, b = heapq.heappop(heap)
        members[b].append(index)
        heapq.heappush(heap, (load + lengths[index], b))
    return [sorted(b) for b in members]
