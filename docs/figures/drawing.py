"""A small writer of SVG figures: the same calls give the same bytes."""

from __future__ import annotations

from html import escape
from pathlib import Path

INK, MUTED, PAPER, LINE, ACCENT = "#1f2933", "#52606d", "#ffffff", "#9aa5b1", "#00796b"
RANKS = ("#00796b", "#c2410c", "#3b5bdb", "#a61e4d", "#5c940d", "#6741d9", "#b08900", "#0b7285")
"""One colour for each tensor-parallel rank."""


class Drawing:
    """A figure with a white ground, so that it can be read in a dark page too.

    Args:
        width: Width in pixels.
        height: Height in pixels.
        title: What the figure shows, for readers who cannot see it.
    """

    def __init__(self, width: int, height: int, title: str) -> None:
        self._lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
            'font-family="system-ui, sans-serif" font-size="13">',
            f"<title>{escape(title)}</title>",
            *(_marker(name, colour) for name, colour in (("line", LINE), ("accent", ACCENT))),
            f'<rect width="{width}" height="{height}" rx="8" fill="{PAPER}"/>',
        ]

    def box(self, x: float, y: float, width: float, height: float, *, fill: str = PAPER, line: str = LINE) -> None:
        """Draw a rectangle with round corners."""
        self._lines.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" fill="{fill}" stroke="{line}"/>'
        )

    def text(
        self, x: float, y: float, words: str, *, anchor: str = "middle", bold: bool = False, colour: str = INK
    ) -> None:
        """Write one line of text with its base line at y."""
        weight = ' font-weight="600"' if bold else ""
        self._lines.append(
            f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{colour}"{weight}>{escape(words)}</text>'
        )

    def arrow(self, *points: tuple[float, float], accent: bool = False) -> None:
        """Draw a line through the points with a head at its end."""
        colour, name, width = (ACCENT, "accent", 2.5) if accent else (LINE, "line", 1.5)
        self._lines.append(
            f'<polyline points="{_path(points)}" fill="none" stroke="{colour}" stroke-width="{width:g}" '
            f'marker-end="url(#{name})"/>'
        )

    def line(self, *points: tuple[float, float], colour: str = LINE) -> None:
        """Draw a line through the points."""
        self._lines.append(f'<polyline points="{_path(points)}" fill="none" stroke="{colour}" stroke-width="1.5"/>')

    def dot(self, x: float, y: float, *, fill: str, line: str) -> None:
        """Draw a node of a tree."""
        self._lines.append(f'<circle cx="{x:g}" cy="{y:g}" r="7" fill="{fill}" stroke="{line}" stroke-width="2"/>')

    def save(self, script: str) -> None:
        """Write the figure beside the script, under its name."""
        Path(script).with_suffix(".svg").write_text(self.svg(), encoding="utf-8")

    def svg(self) -> str:
        """Return the figure's text."""
        return "\n".join([*self._lines, "</svg>", ""])


def _path(points: tuple[tuple[float, float], ...]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)


def _marker(name: str, colour: str) -> str:
    return (
        f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerUnits="userSpaceOnUse" markerWidth="10" '
        f'markerHeight="10" orient="auto"><path d="M0 0 8 4 0 8z" fill="{colour}"/></marker>'
    )
