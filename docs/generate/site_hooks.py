"""Hooks of mkdocs, so that pages work on a code host and in the site.

Links that leave docs/ lead to the repository, and a link whose text is a file's name has the page's title instead.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_LINK = re.compile(r"\]\((\.\./[^)\s#]+)(#[^)\s]*)?\)")
_NAMED = re.compile(r"\[(\w+\.md)\]\((\1)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, **others: Any) -> str:
    """Rewrite the links of a page before mkdocs reads them."""
    linked = with_repository_links(markdown, config["repo_url"], ROOT / "docs" / page.file.src_uri)
    return with_titles(linked, titles(config["nav"]))


def titles(nav: Any) -> dict[str, str]:
    """Return the title of each page in mkdocs.yml's nav by file."""
    found = {}
    for entry in nav:
        ((title, target),) = entry.items()
        found |= {target: title} if isinstance(target, str) else titles(target)
    return found


def with_titles(markdown: str, names: dict[str, str]) -> str:
    """Replace the text of links that name a page's file by the page's title."""
    return _NAMED.sub(lambda found: f"[{names.get(found[1], found[1])}]({found[2]}{found[3] or ''})", markdown)


def with_repository_links(markdown: str, repository: str, page: Path) -> str:
    """Replace links to files outside docs/ by their addresses in the repository.

    Args:
        markdown: Text of the page.
        repository: Address of the repository.
        page: The page's file, to which the links are relative.

    Raises:
        FileNotFoundError: There is no such file.
    """

    def address(found: re.Match[str]) -> str:
        target = (page.parent / found[1]).resolve()
        if target.is_relative_to(ROOT / "docs"):
            return found[0]
        if not target.exists():
            raise FileNotFoundError(f"{page.relative_to(ROOT)} links to {found[1]}, which does not exist")
        kind = "tree" if target.is_dir() else "blob"
        return f"]({repository}/{kind}/main/{target.relative_to(ROOT).as_posix()}{found[2] or ''})"

    return _LINK.sub(address, markdown)
