"""Draw docs/figures/stock_kernels.svg: where stock vLLM and Hugging Face part, op by op.

The values in stock_kernels.csv are those of `rlsync trace` for a sequence of 125 tokens with SmolLM2-135M-Instruct in
bfloat16 on a CPU, with kernels=native. With kernels=invariant no op of the same sequence differs.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

from drawing import ACCENT, INK, LINE, MUTED, Drawing

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 920, 400, 86, 24, 64, 330
LOWEST, HIGHEST = -4.0, -1.0
"""Powers of ten at the ends of the vertical axis."""
DIFFERENT = "#c2410c"


@dataclass(frozen=True)
class Point:
    """The difference at one op."""

    op: str
    relative: float | None
    """Norm of the difference over the norm of the trainer's row; None where no token differs."""


def read() -> list[Point]:
    """Return the difference at every op, in the order of computation."""
    with Path(__file__).with_suffix(".csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [Point(row["op"], float(row["relative_diff"]) if row["relative_diff"] else None) for row in rows]


def draw() -> Drawing:
    """Return the figure."""
    points = read()
    figure = Drawing(WIDTH, HEIGHT, "The relative difference between stock vLLM and Hugging Face at every op")
    figure.text(LEFT, 28, "Stock kernels part at the first rotation, and never meet again", anchor="start", bold=True)
    figure.text(LEFT, 46, "relative difference of the first token that differs, by op", anchor="start", colour=MUTED)
    _axes(figure, points)
    known = [(index, point.relative) for index, point in enumerate(points) if point.relative]
    figure.line(*((_x(index, points), _y(value)) for index, value in known), colour=DIFFERENT)
    _first(figure, points, known[0])
    zero = BOTTOM - 6
    figure.line((LEFT, zero), (WIDTH - RIGHT, zero), colour=ACCENT)
    figure.text(WIDTH - RIGHT, zero - 8, "kernels=invariant: no op differs", anchor="end", colour=ACCENT)
    return figure


def _first(figure: Drawing, points: list[Point], first: tuple[int, float]) -> None:
    x, y = _x(first[0], points), _y(first[1])
    figure.dot(x, y, fill=DIFFERENT, line=DIFFERENT)
    figure.line((x, y), (x, TOP + 40), colour=DIFFERENT)
    words = f"first difference: {points[first[0]].op}"
    figure.text(x, TOP + 32, words, anchor="start", bold=True, colour=DIFFERENT)


def _axes(figure: Drawing, points: list[Point]) -> None:
    figure.line((LEFT, TOP), (LEFT, BOTTOM), (WIDTH - RIGHT, BOTTOM))
    for power in range(int(LOWEST) + 1, int(HIGHEST) + 1):
        figure.line((LEFT, _y(10.0**power)), (WIDTH - RIGHT, _y(10.0**power)), colour="#e4e7eb")
        figure.text(LEFT - 10, _y(10.0**power) + 4, f"{10.0**power:g}", anchor="end", colour=MUTED)
    figure.text(LEFT - 10, BOTTOM, "0", anchor="end", colour=MUTED)
    for layer in range(0, 30, 5):
        at = next(index for index, point in enumerate(points) if point.op == f"layers.{layer}.residual")
        figure.line((_x(at, points), BOTTOM), (_x(at, points), BOTTOM + 6), colour=LINE)
        figure.text(_x(at, points), BOTTOM + 24, f"layer {layer}", colour=INK)
    figure.text(_x(len(points) - 1, points), BOTTOM + 24, "head", colour=INK, anchor="end")


def _x(index: int, points: list[Point]) -> float:
    return round(LEFT + (WIDTH - LEFT - RIGHT) * index / (len(points) - 1), 1)


def _y(value: float) -> float:
    share = (min(max(math.log10(value), LOWEST), HIGHEST) - LOWEST) / (HIGHEST - LOWEST)
    return round(BOTTOM - 20 - (BOTTOM - 20 - TOP) * share, 1)


if __name__ == "__main__":
    draw().save(__file__)
