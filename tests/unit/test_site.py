"""What the site is made of: its navigation, links and figures, without mkdocs itself."""

import importlib
import re
import sys
import tomllib
from pathlib import Path

import pytest
import site_hooks
import yaml

ROOT = Path(__file__).parents[2]
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
PAGES = sorted(ROOT.glob("docs/*.md"))
FIGURES = sorted(path for path in ROOT.glob("docs/figures/*.py") if path.stem != "drawing")
REPOSITORY = "https://example.org/repo"


def _outside_code(text):
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def _anchors(page):
    """The anchors of a page's headings, as code hosts and the site make them."""
    headings = re.findall(r"^#+ (.+)$", _outside_code(page.read_text()), re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    return [re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in plain]


def _dead(page, text):
    """Links of a page to headings that do not exist."""
    links = re.findall(r"\]\((?:([\w/.]+\.md))?#([^)\s]+)\)", _outside_code(text))
    targets = [((page.parent / file).resolve() if file else page, anchor) for file, anchor in links]
    return [anchor for target, anchor in targets if anchor not in _anchors(target)]


def test_the_navigation_has_every_page_once():
    assert sorted(site_hooks.titles(SITE["nav"])) == [page.name for page in PAGES]
    assert len(re.findall(r"\.md$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)) == len(PAGES)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_links_to_headings_lead_somewhere(page):
    assert _dead(page, page.read_text()) == []


def test_control_a_link_to_a_heading_that_is_gone_is_found():
    page = ROOT / "docs/limits.md"
    assert _dead(page, "[a](#models) [b](#gone) [c](security.md#ports) [d](security.md#gone)") == ["gone", "gone"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_begins_with_its_only_title(page):
    text = _outside_code(page.read_text())
    assert text.startswith("# ")
    assert len(re.findall(r"^# ", text, re.MULTILINE)) == 1


def test_the_site_knows_the_repository_s_address():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert SITE["repo_url"] == project["urls"]["Repository"]


def test_nothing_is_loaded_from_the_network():
    assert SITE["theme"]["font"] is False
    assert not any("//" in each for key in ("extra_css", "extra_javascript") for each in SITE.get(key, []))
    assert [page.name for page in PAGES if "```mermaid" in page.read_text()] == []  # the theme would fetch its script


def test_links_that_leave_the_documentation_lead_to_the_repository():
    page = ROOT / "docs/limits.md"
    text = "[a](../README.md#use), [b](../rlsync/cli.py), [c](../recipes), [d](metrics.md), [e](../docs/metrics.md)"
    assert site_hooks.with_repository_links(text, REPOSITORY, page) == (
        f"[a]({REPOSITORY}/blob/main/README.md#use), [b]({REPOSITORY}/blob/main/rlsync/cli.py), "
        f"[c]({REPOSITORY}/tree/main/recipes), [d](metrics.md), [e](../docs/metrics.md)"
    )
    with pytest.raises(FileNotFoundError, match=r"docs/limits\.md links to \.\./gone\.py"):
        site_hooks.with_repository_links("[a](../gone.py)", REPOSITORY, page)


def test_links_that_name_a_file_have_the_page_s_title():
    names = site_hooks.titles([{"Metrics": "metrics.md"}, {"Concepts": [{"PPO with a critic": "ppo.md"}]}])
    text = "[metrics.md](metrics.md#parity), [ppo.md](ppo.md), [the page](ppo.md), [new.md](new.md)"
    assert site_hooks.with_titles(text, names) == (
        "[Metrics](metrics.md#parity), [PPO with a critic](ppo.md), [the page](ppo.md), [new.md](new.md)"
    )


@pytest.mark.parametrize("script", FIGURES, ids=lambda path: path.stem)
def test_a_figure_is_what_its_script_draws(script, monkeypatch):
    monkeypatch.syspath_prepend(str(script.parent))
    module = importlib.import_module(script.stem)
    try:
        assert module.draw().svg() == script.with_suffix(".svg").read_text(), "run `make reference`"
        assert module.draw().svg() != script.with_suffix(".svg").read_text().replace("TP", "PT").replace("vLLM", "V")
    finally:
        for name in (script.stem, "drawing"):
            sys.modules.pop(name, None)


def test_every_figure_is_shown_and_drawn():
    shown = {name for page in PAGES for name in re.findall(r"\]\(figures/(\w+)\.svg\)", page.read_text())}
    assert shown == {path.stem for path in FIGURES} == {path.stem for path in ROOT.glob("docs/figures/*.svg")}
