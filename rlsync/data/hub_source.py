"""Rows of a data set of the Hugging Face hub."""

from __future__ import annotations

from rlsync.config.data import DataConfig
from rlsync.data.row_source import Table
from rlsync.errors import DataError


def read_hub(config: DataConfig, split: str, option: str) -> Table:
    """Load a split of `data.path`, from the hub or its local cache.

    Args:
        option: the config field that named the split, for messages.

    Raises:
        DataError: no such data set, subset or split, no access, or no network.
    """
    # Over a second to import, which runs on other sources need not pay.
    import datasets
    from datasets.exceptions import DatasetsError

    try:
        dataset = datasets.load_dataset(config.path, config.subset, split=split)
    # Absent or unreachable is an OSError, a wrong subset or split a ValueError, a loading script a RuntimeError.
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        raise DataError(
            f"data.path={config.path!r} (data.subset={config.subset}, {option}={split}) cannot be "
            f"loaded from the hub: {error}. Check the names and the network; a private or gated data set needs "
            "`hf auth login`, a machine without network data.source=file"
        ) from error
    return Table(name=f"data.path={config.path} ({split})", rows=[dict(row) for row in dataset])
