"""Candidates for the tile table (rlsync/kernels/triton/tiles.py): speed beside cuBLAS, and proof of equal bits.

    python benchmarks/tiles.py --rows 16 64 128 --columns 4096 --depth 4096 12288 --leaves 8 2 1 --record

Every tile that compiles for a shape is timed as gpu_kernels.py times, and its result compared with that of the table's
own entry: a tile with other bits is an error. The table is then edited by hand, from the best of each line.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import results
import torch
from gpu_kernels import random, seconds, weights_in_turn
from triton.runtime.errors import OutOfResources

from rlsync.kernels.triton import matmul
from rlsync.kernels.triton.matmul import blockwise, persistent
from rlsync.kernels.triton.tiles import BlockTile, Form, PersistentTile

_PIPELINES = ((64, 4), (64, 6), (128, 4), (128, 6), (256, 3))
"""Depths of K, and how many of them are in flight."""


@dataclass
class Timed:
    rows: int
    depth: int
    columns: int
    leaves: int
    cublas_us: float
    tile: str
    share: float
    """Speed as a share of cuBLAS's."""


def candidates(rows: int, leaf_k: int, leaves: int) -> Iterator[BlockTile | PersistentTile]:
    """Tiles worth a try; those that need more memory than there is fail and are left out."""
    own = next(r for r in (16, 32, 64) if rows <= r or r == 64)
    if rows <= 128:
        for columns, (depth, stages) in itertools.product((16, 32, 64, 128), _PIPELINES):
            for form in Form:
                if form is Form.programs or (leaves > 1 and leaf_k % depth == 0):
                    yield BlockTile(own, columns, depth, 8 if form is Form.side_by_side else 4, stages, form)
    if rows > 16:
        for columns, stages in ((32, 9), (64, 6), (128, 5), (256, 3)):
            if leaf_k % 64 == 0:
                yield PersistentTile(columns, 64, stages)


def sweep(rows: int, depth: int, columns: int, leaves: int) -> list[Timed]:
    """Best first."""
    x = random(rows, depth)
    weights = weights_in_turn(columns, depth)
    stock = seconds([lambda w=w: torch.matmul(x, w.t()) for w in weights])
    expected = matmul(x, weights[0], None, leaves, torch.bfloat16)
    timed = []
    for tile in candidates(rows, depth // leaves, leaves):
        form = blockwise if isinstance(tile, BlockTile) else persistent
        calls = [partial(form, x, w, None, leaves, torch.bfloat16, tile) for w in weights]
        try:
            result = calls[0]()
        except OutOfResources:
            continue
        if not torch.equal(result, expected):
            raise AssertionError(f"{tile} gives other bits at {rows} x {depth} x {columns}, {leaves} leaves")
        share = stock / seconds(calls)
        timed.append(Timed(rows, depth, columns, leaves, stock * 1e6, str(tile), share))
    return sorted(timed, key=lambda one: -one.share)


def row(one: Timed) -> dict[str, object]:
    shape = {"m": one.rows, "k": one.depth, "n": one.columns, "leaves": one.leaves}
    return {**shape, "cublas_us": one.cublas_us, "tile": one.tile, "share_of_cublas": one.share}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 16, 32, 64, 96, 128, 256])
    parser.add_argument("--depth", nargs="+", type=int, default=[4096, 12288])
    parser.add_argument("--columns", nargs="+", type=int, default=[4096])
    parser.add_argument("--leaves", nargs="+", type=int, default=[8, 2, 1])
    parser.add_argument("--best", type=int, default=3, help="tiles to show of each shape")
    results.add_options(parser)
    args = parser.parse_args()
    best = []
    for rows, depth, columns, leaves in itertools.product(args.rows, args.depth, args.columns, args.leaves):
        found = sweep(rows, depth, columns, leaves)
        best += found[:1]
        for one in found[: args.best]:
            print(f"{rows:5} x {depth:6} x {columns:6}, {leaves:2} leaves: {one.share:.2f}  {one.tile}", flush=True)
    results.append("tiles", [row(one) for one in best], args, results.device_name("cuda"))


if __name__ == "__main__":
    main()
