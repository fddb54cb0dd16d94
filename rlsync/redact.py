"""Remove secrets from URLs in everything that is written, shown or sent."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlsplit

HIDDEN = "***"
_URL = re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>\\]+")
_TOKEN_NAME = re.compile(
    r"token|secret|passw|pwd|api.?key|access.?key|^key$|auth|^sig$|signature|credential|session|bearer|jwt",
    re.IGNORECASE,
)
_LONG = 20
"""Smallest number of characters of a text that may be a token."""


def redacted(text: str) -> str:
    """Hide secrets in every URL of the text.

    Hidden are user and password, the values of the query, the fragment, and parts of the path that look like tokens.
    """
    return _URL.sub(lambda match: _redacted_url(match[0]), text)


def without_secrets(error: str | None) -> str | None:
    """Return an error's message as `redacted` does; None if there was no error."""
    return None if error is None else redacted(error)


def secret_in(url: str) -> str | None:
    """Return the name of the part of a URL that is or may be a secret; None if no part looks like one."""
    parts = urlsplit(url)
    if "@" in parts.netloc:
        return "a user name or password"
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if _TOKEN_NAME.search(name) or _like_a_token(value):
            return f"the query parameter {name!r}"
    if any(map(_like_a_token, parts.path.split("/"))):
        return "a part of its path that looks like a token"
    return None


def _redacted_url(url: str) -> str:
    head, _, rest = url.partition("://")
    place, slash, path = re.match(r"([^/?#]*)(/?)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]
    before, _, _ = path.partition("#")
    path, query, values = before.partition("?")
    place = place.rpartition("@")[2] if "@" not in place else f"{HIDDEN}@{place.rpartition('@')[2]}"
    path = "/".join(HIDDEN if _like_a_token(part) else part for part in path.split("/"))
    values = "&".join(part.partition("=")[0] + f"={HIDDEN}" for part in values.split("&")) if query else ""
    return f"{head}://{place}{slash}{path}{query}{values}"


def _like_a_token(text: str) -> bool:
    """Whether the text is long and has both letters and digits."""
    return (
        len(text) >= _LONG and bool(re.search(r"\d", text)) and bool(re.search(r"[A-Za-z]", text)) and " " not in text
    )
