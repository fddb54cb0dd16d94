"""Ranks that hold some columns each draw the tokens that one rank draws from whole rows, with the same log-probs."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from rlsync.kernels import ops
from rlsync.kernels.row_ops import share_of
from rlsync.kernels.tp_sampling import draw_across

VOCABULARY, COLUMNS, TEMPERATURE = 995, 1000, 0.7


def _logits(count):
    return torch.randn(count, COLUMNS, generator=torch.Generator().manual_seed(count)) * 3


def _keys(count):
    rows = torch.arange(count)
    return rows * 977, rows + 3, rows % 3 == 1


def _expected(count, seeds, positions, greedy):
    logits = _logits(count)[:, :VOCABULARY].contiguous()
    rows = ops.logprobs(logits, TEMPERATURE)
    tokens = ops.draw(rows, seeds, positions)
    if greedy is not None:
        tokens = torch.where(greedy, ops.greedy(rows), tokens)
    return tokens, rows.gather(1, tokens[:, None])[:, 0], ops.row_digests(logits)


def _rank(rank, ranks, counts, folder):
    dist.init_process_group("gloo", store=dist.FileStore(f"{folder}/store", ranks), rank=rank, world_size=ranks)
    drawn = {}
    for count in counts:
        mine = _logits(count).chunk(ranks, 1)[rank]
        seeds, positions, greedy = _keys(count)
        for some in (greedy, None):
            drawn[count, some is None] = tuple(
                draw_across(mine, dist.group.WORLD, VOCABULARY, TEMPERATURE, seeds, positions, some)
            )
    torch.save(drawn, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_whole_rows_are_drawn_from(tmp_path, ranks):
    counts = (1, 2, 5, 8)
    mp.spawn(_rank, (ranks, counts, str(tmp_path)), nprocs=ranks)
    for rank in range(ranks):
        drawn = torch.load(tmp_path / f"{rank}.pt")
        for count in counts:
            seeds, positions, greedy = _keys(count)
            for some in (greedy, None):
                expected = _expected(count, seeds, positions, some)
                for mine, whole in zip(drawn[count, some is None], expected, strict=True):
                    assert torch.equal(mine, whole)
    assert not torch.equal(drawn[8, True][0], _expected(8, seeds + 1, positions, None)[0])  # the control


def test_shares_cover_all_rows_once():
    for count in range(9):
        bounds = [share_of(count, 4, rank) for rank in range(4)]
        assert [row for begin, end in bounds for row in range(begin, end)] == list(range(count))
