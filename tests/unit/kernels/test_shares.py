"""Rows that ranks share out, of columns that each has: every rank gets whole rows, all get all results."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from rlsync.kernels.collectives import gather_shares, share, share_rows


def _rank(rank, ranks, count, folder):
    dist.init_process_group("gloo", store=dist.FileStore(f"{folder}/store", ranks), rank=rank, world_size=ranks)
    whole = torch.arange(count * 4 * ranks, dtype=torch.float32).view(count, 4 * ranks)
    mine = share_rows(whole[:, 4 * rank : 4 * rank + 4], dist.group.WORLD)
    begin, end = share(count, ranks, rank)
    results = gather_shares(mine.sum(1), count, dist.group.WORLD)
    torch.save((torch.equal(mine, whole[begin:end]), torch.equal(results, whole.sum(1))), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize(("ranks", "count"), [(2, 1), (2, 5), (4, 5), (2, 8)])
def test_rows_are_shared_out(tmp_path, ranks, count):
    mp.spawn(_rank, (ranks, count, str(tmp_path)), nprocs=ranks)
    assert all(torch.load(tmp_path / f"{rank}.pt") == (True, True) for rank in range(ranks))


def test_shares_cover_all_rows_once():
    for count in range(9):
        bounds = [share(count, 4, rank) for rank in range(4)]
        assert [row for begin, end in bounds for row in range(begin, end)] == list(range(count))
