"""The documentation's links lead somewhere, the keys that it names exist, and its lines can be read side by side."""

import re
from pathlib import Path

import pytest

from rlsync.config.fields import type_at, valid_keys

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "rlsync/kernels/README.md", *ROOT.glob("docs/*.md")]
)
COMPONENTS = {key.partition(".")[0] for key in valid_keys() if "." in key}
LONGEST_LINE = 120
WIDE = ROOT / "docs/benchmarks.md"  # lines of figures


def _links(text):
    """Targets within the repository, without the heading that they name."""
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    return [target.partition("#")[0] for target in targets if not target.startswith(("http", "#"))]


def _keys(text):
    """Dotted keys of the configuration in `code`, alone or with a value."""
    spans = re.findall(r"`([a-z_]+(?:\.[a-z_0-9]+)+)(?:=[^`]*)?`", text)
    files = (".py", ".yaml", ".json", ".jsonl", ".md", ".log")
    return [span for span in spans if span.partition(".")[0] in COMPONENTS and not span.endswith(files)]


def _prose(text):
    """Lines outside tables and code."""
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return [line for line in outside.splitlines() if not line.startswith("|")]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    missing = [link for link in _links(path.read_text()) if not (path.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_keys_exist(path):
    unknown = [key for key in _keys(path.read_text()) if type_at(key) is None]
    assert not unknown


@pytest.mark.parametrize("path", [p for p in PAGES if p != WIDE], ids=lambda path: str(path.relative_to(ROOT)))
def test_lines_are_not_too_long(path):
    assert [line for line in _prose(path.read_text()) if len(line) > LONGEST_LINE] == []


def test_control_what_is_looked_for_is_found():
    assert _links("[a](gone.md#x), [b](https://example.org)") == ["gone.md"]
    assert _keys("`trainer.no_such=1`, `trainer.lr`, `trainer.py`") == ["trainer.no_such", "trainer.lr"]
    assert type_at("trainer.no_such") is None
    assert sum(len(_keys(path.read_text())) for path in PAGES) > 150
