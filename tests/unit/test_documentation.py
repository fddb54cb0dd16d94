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


def _sources(text):
    """Paths of Python files in `code`, such as controller/loop.py; names without a folder are not looked for."""
    return [path for path in re.findall(r"`(?:\.\./)?([\w/]+/\w+\.py)`", text) if "file.py" not in path]


def _exists(source):
    return any((ROOT / root / source).is_file() for root in (".", "rlsync", "rlsync/kernels"))


def _walks(text):
    """The steps of each walk through the code, as the files that each step names."""
    walks = re.split(r"^## Walk \d+: ", text, flags=re.MULTILINE)[1:]
    return [[_sources(step) for step in re.split(r"^\d+\. ", walk, flags=re.MULTILINE)[1:]] for walk in walks]


def _prose(text):
    """Lines outside tables and code."""
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return [line for line in outside.splitlines() if not line.startswith("|")]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    missing = [link for link in _links(path.read_text()) if not (path.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_source_files_exist(path):
    assert [source for source in _sources(path.read_text()) if not _exists(source)] == []


def test_each_step_of_the_four_walks_names_files():
    walks = _walks((ROOT / "docs/architecture.md").read_text())
    assert [len(walk) >= 5 and all(walk) for walk in walks] == [True] * 4


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
    assert _sources("`controller/no_such.py`, `loop.py`") == ["controller/no_such.py"]
    assert not _exists("controller/no_such.py")
    assert sum(len(_sources(path.read_text())) for path in PAGES) > 100
    assert sum(len(_keys(path.read_text())) for path in PAGES) > 150
