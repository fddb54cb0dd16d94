"""Stable digests. Orders and seeds come from them, so that no library's generator can change them."""

from __future__ import annotations

from hashlib import blake2b


def digest(*parts: str | int) -> int:
    """An unsigned 64-bit digest of the parts; the same on every machine and Python."""
    # The length in front keeps ("ab", "c") and ("a", "bc") apart.
    encoded = [str(part).encode() for part in parts]
    data = b"".join(len(part).to_bytes(8, "little") + part for part in encoded)
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little")


def problem_id(prompt: str) -> str:
    return f"{digest(prompt):016x}"
