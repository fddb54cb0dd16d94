"""Rows of a data set of the Hugging Face hub."""

from __future__ import annotations

from rlsync.config.data import DataConfig
from rlsync.data.row_source import Table
from rlsync.errors import DataError


def read_hub(config: DataConfig, split: str, option: str) -> Table:
    """Load a split of `data.path` from the hub or its local cache.

    Args:
        config: Names the data set and the subset.
        split: The hub's name of the split.
        option: The configuration field that names the split, for messages.

    Raises:
        DataError: The data set, subset or split does not exist, or there is no access or no network.
    """
    # The import takes over a second, which runs with other sources save.
    import datasets
    from datasets.exceptions import DatasetsError

    try:
        dataset = datasets.load_dataset(config.path, config.subset, split=split)
    # OSError: missing or unreachable; ValueError: wrong subset or split; RuntimeError: a loading script.
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        raise DataError(
            f"data.path={config.path!r} (data.subset={config.subset}, {option}={split}) cannot be "
            f"loaded from the hub: {error}. Check the names and the network. A private or gated data set needs "
            "`hf auth login`; on a machine without network, use data.source=file"
        ) from error
    return Table(name=f"data.path={config.path} ({split})", rows=[dict(row) for row in dataset])
