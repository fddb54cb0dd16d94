"""Makes the HTML of a page: scripts, styles and data in one file that loads nothing else."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_STATIC = Path(__file__).parent / "static"
STYLES = ("uPlot.min.css", "style.css", "rollouts.css")
SCRIPTS = (
    "uPlot.iife.min.js",
    "data.js",
    "dom.js",
    "format.js",
    "theme.js",
    "chart_list.js",
    "chart.js",
    "charts_view.js",
    "overview.js",
    "metrics_view.js",
    "config_view.js",
    "rollout_list.js",
    "rollout_detail.js",
    "rollouts_view.js",
    "main.js",
)
"""Files of the static folder in the order in which a page needs them."""


@dataclass(slots=True, kw_only=True)
class Page:
    """What a page is made of."""

    title: str
    core: str
    """The chunk that the first view needs."""
    others: dict[str, str] = field(default_factory=dict)
    """Chunks that are decoded when they are needed, by the id of their element."""
    live: bool = False
    """Whether the page asks a server for what is new."""


def render(page: Page) -> Iterator[str]:
    """Yield the parts of the HTML. What a run wrote is escaped, or in a chunk, whose base64 holds no markup."""
    scripts, styles = [_read(name) for name in SCRIPTS], [_read(name) for name in STYLES]
    yield "<!doctype html>\n"
    yield '<html lang="en"><head><meta charset="utf-8">\n'
    yield f'<meta http-equiv="Content-Security-Policy" content="{_policy(scripts, styles, live=page.live)}">\n'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    yield '<meta name="color-scheme" content="light dark">\n'
    yield '<meta name="referrer" content="no-referrer">\n'
    yield '<link rel="icon" href="data:,">\n'
    yield f"<title>{html.escape(page.title)}</title>\n"
    yield from (f"<style>{style}</style>\n" for style in styles)
    yield '</head><body><div id="app"><noscript>This report needs JavaScript.</noscript></div>\n'
    yield _chunk("core", page.core)
    yield from (f"<script>{script}</script>\n" for script in scripts)
    yield from (_chunk(name, chunk) for name, chunk in page.others.items())
    yield "</body></html>\n"


def _read(name: str) -> str:
    """Return the text of a static file as it stands between its tags."""
    return f"\n{(_STATIC / name).read_text(encoding='utf-8').strip()}\n"


def _chunk(name: str, chunk: str) -> str:
    return f'<script type="application/octet-stream" id="{name}">{chunk}</script>\n'


def _policy(scripts: list[str], styles: list[str], *, live: bool) -> str:
    """Return a policy under which only the page's own scripts and styles apply, and nothing is loaded."""
    allowed = {
        "default-src": "'none'",
        "script-src": " ".join(map(_hash, scripts)),
        "style-src": " ".join(map(_hash, styles)),
        "img-src": "data:",
        "connect-src": "'self'" if live else "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in allowed.items())


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
