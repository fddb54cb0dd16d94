"""Stable digests, from which orders and seeds are derived, so that they do not depend on a library's generator."""

from __future__ import annotations

from hashlib import blake2b


def digest(*parts: str | int) -> int:
    """Return an unsigned 64-bit digest of the parts, which is the same on every machine and Python version."""
    # The length in front makes ("ab", "c") and ("a", "bc") different.
    encoded = [str(part).encode() for part in parts]
    data = b"".join(len(part).to_bytes(8, "little") + part for part in encoded)
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little")


def problem_id(prompt: str) -> str:
    """Return a problem's id: the digest of its prompt as 16 hex digits."""
    return f"{digest(prompt):016x}"
