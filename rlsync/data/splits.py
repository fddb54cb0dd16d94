"""The split that a problem belongs to."""

from __future__ import annotations

from rlsync.config.data import DataConfig
from rlsync.data.hashing import digest
from rlsync.data.problem import Split


def split_of(prompt: str, config: DataConfig) -> Split:
    """Return the split of a prompt. It depends only on a hash of the text, so no seed moves it to another split."""
    bucket = digest("split", prompt) % 100
    if bucket < config.held_out_percent:
        return Split.held_out
    if bucket < config.held_out_percent + config.warm_start_percent:
        return Split.warm_start
    return Split.train
