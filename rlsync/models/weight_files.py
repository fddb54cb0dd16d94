"""The weight files of a checkpoint, and the names, shapes and dtypes of the tensors in them."""

from __future__ import annotations

import contextlib
import json
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import get_safetensors_metadata, snapshot_download
from huggingface_hub.errors import NotASafetensorsRepoError
from safetensors import SafetensorError, safe_open
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, WEIGHTS_INDEX_NAME, WEIGHTS_NAME

from rlsync.errors import ConfigError, first_line

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Names in safetensors of the dtypes of weights that are not quantised."""
NAMED = 5
"""Largest number of weights that a message names."""


@dataclass(slots=True, frozen=True)
class Stored:
    """Shape and dtype of a tensor of a checkpoint."""

    shape: tuple[int, ...]
    dtype: str
    """Name of the dtype in safetensors, such as BF16."""


def stored_tensors(path: str, field: str, revision: str) -> dict[str, Stored]:
    """The tensors of a checkpoint, by name, without their values.

    Args:
        path: resolved folder or hub id.
        field: configuration field of the path, for messages.
        revision: revision of a hub id; ignored for a folder.

    Raises:
        ConfigError: the weights are incomplete or cannot be read.
    """
    folder = Path(path)
    if not folder.is_dir():
        found = _stored_on_hub(path, field, revision)
        if isinstance(found, dict):
            return found
        folder = found
    stored: dict[str, Stored] = {}
    for file in weight_files(folder, field):
        stored |= _read(file, field)
    return stored


def _stored_on_hub(path: str, field: str, revision: str) -> dict[str, Stored] | Path:
    """The tensors of a hub id, read from the headers of its files; or the local folder that holds the files."""
    with contextlib.suppress(OSError):  # use the local cache if it is complete, so that no network is needed
        folder = Path(snapshot_download(path, revision=revision, local_files_only=True))
        with contextlib.suppress(ConfigError):
            weight_files(folder, field)
            return folder
    try:
        try:
            files = get_safetensors_metadata(path, revision=revision).files_metadata.values()
        except NotASafetensorsRepoError:
            return Path(snapshot_download(path, revision=revision, allow_patterns=["*.bin", "*.bin.index.json"]))
        return {
            name: Stored(tuple(tensor.shape), str(tensor.dtype))
            for file in files
            for name, tensor in file.tensors.items()
        }
    except Exception as error:  # the network, the hub or a file may raise any exception
        raise ConfigError(f"{field}={path}: the weights cannot be read from the hub ({first_line(error)})") from error


def weight_files(folder: Path, field: str) -> list[Path]:
    """The files that transformers loads from a model's folder.

    Args:
        folder: the model's folder.
        field: configuration field of the folder, for messages.

    Raises:
        ConfigError: there are no weights, a file that an index lists is missing, or vLLM would load other files too.
    """
    if (folder / "adapter_config.json").is_file():
        raise ConfigError(
            f"{field}={folder}: the folder has an adapter_config.json, so it holds a PEFT adapter and not a whole "
            "model. Merge the adapter into its base model (merge_and_unload in PEFT) and give the folder of the result."
        )
    for name, index in ((SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME), (WEIGHTS_NAME, WEIGHTS_INDEX_NAME)):
        files = _indexed(folder, name, index, field)
        if files:
            _check_no_others(folder, files, f"*{Path(name).suffix}", field)
            return files
    others = sorted(p.name for p in folder.iterdir() if p.suffix in (".safetensors", ".bin", ".pt", ".pth", ".gguf"))
    there = f"only {some(set(others))}" if others else "a config.json but no weights"
    raise ConfigError(
        f"{field}={folder}: the folder has {there}. It needs {SAFE_WEIGHTS_NAME} or {WEIGHTS_NAME}, or the files that "
        f"{SAFE_WEIGHTS_INDEX_NAME} or {WEIGHTS_INDEX_NAME} lists. Give a folder with a whole Hugging Face model, or "
        "a hub id."
    )


def _indexed(folder: Path, name: str, index: str, field: str) -> list[Path]:
    """The file `name`, or the files that the index lists; an empty list if the folder has neither."""
    if (folder / name).is_file():
        return [folder / name]
    if not (folder / index).is_file():
        return []
    try:
        listed = {str(file) for file in json.loads((folder / index).read_text(encoding="utf-8"))["weight_map"].values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{field}={folder}: {index} is not an index of weights ({first_line(error)}). Copy the whole model again."
        ) from error
    lacking = {file for file in listed if not (folder / file).is_file()}
    if lacking or not listed:
        found = f"lists files that are missing: {some(lacking)}" if lacking else "lists no files"
        raise ConfigError(f"{field}={folder}: {index} {found}. Copy the whole model again.")
    return [folder / file for file in sorted(listed)]


def _check_no_others(folder: Path, files: list[Path], pattern: str, field: str) -> None:
    """Check that vLLM would load only these files.

    Without an index vLLM loads every file that matches the pattern, and a tensor of the last file wins.
    """
    if pattern == "*.safetensors" and (folder / SAFE_WEIGHTS_INDEX_NAME).is_file() and len(files) > 1:
        return
    known = {"training_args.bin", "optimizer.bin", *(file.name for file in files)}
    others = {p.name for p in folder.glob(pattern) if p.name not in known and not p.name.startswith("consolidated")}
    if others:
        raise ConfigError(
            f"{field}={folder}: besides {files[0].name} the folder has {some(others)}, which vLLM would load too. Move "
            "files that do not belong to this model to another folder."
        )


def _read(file: Path, field: str) -> dict[str, Stored]:
    """The tensors of one file, by name."""
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as tensors:
                slices = {name: tensors.get_slice(name) for name in tensors.offset_keys()}
                return {name: Stored(tuple(s.get_shape()), str(s.get_dtype())) for name, s in slices.items()}
        loaded = torch.load(file, map_location="meta", weights_only=True, mmap=zipfile.is_zipfile(file))
        kinds = {dtype: name for name, dtype in DTYPES.items()}
        return {name: Stored(tuple(t.shape), kinds.get(t.dtype, str(t.dtype))) for name, t in loaded.items()}
    except (OSError, SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError, AttributeError) as error:
        raise ConfigError(
            f"{field}={file.parent}: {file.name} cannot be read as weights ({first_line(error)}). Copy or save the "
            "file again."
        ) from error


def some(names: set[str]) -> str:
    """The first of some names, sorted, for a message."""
    shown = sorted(names)[:NAMED]
    return ", ".join(shown) + (", ..." if len(names) > NAMED else "")
