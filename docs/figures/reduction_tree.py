"""Draw docs/figures/reduction_tree.svg: one tree of additions, and which ranks own its parts at each TP size."""

from __future__ import annotations

from drawing import INK, MUTED, PAPER, RANKS, Drawing

LEAVES, SPACE, TOP, LEVEL, WIDTH = 8, 25, 86, 52, 225


def draw() -> Drawing:
    """Return the figure."""
    figure = Drawing(
        4 * WIDTH + 20, 356, "The same reduction tree over eight leaves at tensor-parallel sizes 1, 2, 4 and 8"
    )
    for panel, ranks in enumerate((1, 2, 4, 8)):
        _tree(figure, 20 + panel * WIDTH, ranks)
    figure.dot(34, 328, fill=RANKS[0], line=RANKS[0])
    figure.text(50, 332, "added within a rank; a colour for each rank", anchor="start")
    figure.dot(360, 328, fill=PAPER, line=INK)
    figure.text(376, 332, "roots of ranks, added after the exchange in the same order", anchor="start")
    return figure


def _tree(figure: Drawing, x: float, ranks: int) -> None:
    """Draw the tree of one TP size, with its leaves at the top and its root at the bottom."""
    figure.text(x + SPACE * (LEAVES - 1) / 2, 30, f"TP={ranks}", bold=True)
    places = [x + SPACE * leaf for leaf in range(LEAVES)]
    for leaf, place in enumerate(places):
        figure.text(place, TOP - 20, str(leaf), colour=MUTED)
    y, each = TOP, 1  # `each`: leaves below a node of this level
    while True:
        owners = [_colour(node * each, each, ranks) for node in range(len(places))]
        if len(places) > 1:
            parents = [(left + right) / 2 for left, right in zip(places[::2], places[1::2], strict=True)]
            for node, place in enumerate(places):
                figure.line((place, y), (parents[node // 2], y + LEVEL))
        for place, owner in zip(places, owners, strict=True):
            figure.dot(place, y, fill=owner or PAPER, line=owner or INK)
        if len(places) == 1:
            break
        places, y, each = parents, y + LEVEL, each * 2
    figure.text(places[0], y + 28, "round(root + bias)")


def _colour(first: int, count: int, ranks: int) -> str | None:
    """Return the colour of the rank that owns a range of leaves, or None if several ranks own parts of it."""
    own = LEAVES // ranks
    return RANKS[first // own] if first // own == (first + count - 1) // own else None


if __name__ == "__main__":
    draw().save(__file__)
