"""Whether a checkpoint holds every weight of its model: names, shapes and dtypes, read without the weights themselves.

transformers and vLLM fill a weight that a checkpoint lacks with random numbers and go on, so this is checked first.
"""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import get_safetensors_metadata, snapshot_download
from huggingface_hub.errors import NotASafetensorsRepoError
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import (
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
    logging,
)

from rlsync.config.model import MAIN
from rlsync.errors import ConfigError

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Safetensors' names of the dtypes that hold weights which are not quantised."""
_NAMED = 5
"""Weights that a message names."""
_IGNORED = ("*rotary_emb.*", "*.attn.bias", "*.attn.masked_bias", "*position_ids")
"""Buffers that old checkpoints hold, and that both transformers and vLLM compute themselves."""
_WRAPPERS = ("_orig_mod.", "module.", "_fsdp_wrapped_module.", "base_model.model.", "model.")
"""Prefixes that torch.compile, DDP, FSDP, peft and other wrappers leave in front of every name."""
_SLICE_ROWS = 4096


@dataclass(slots=True, frozen=True)
class Stored:
    """A tensor of a checkpoint."""

    shape: tuple[int, ...]
    dtype: str
    """Safetensors' name, such as BF16."""


def check_weights(
    path: str,
    config: PreTrainedConfig,
    auto: Any,
    *,
    field: str,
    revision: str = MAIN,
    optional: frozenset[str] = frozenset(),
    unread: frozenset[str] = frozenset(),
    served: bool = False,
) -> None:
    """Refuse a checkpoint that does not hold exactly the weights of its model.

    Args:
        path: resolved folder or hub id.
        config: the model's.
        auto: class of transformers that makes the model, such as AutoModelForCausalLM.
        field: of the configuration, that errors name.
        optional: weights that may be missing, because rlsync makes them.
        unread: weights that may be there although the model does not have them.
        served: vLLM loads it too, and knows the weights only by transformers' own names.
    Raises:
        ConfigError: weights are missing, unexpected, of another shape, quantised or unreadable.
    """
    if own := config.to_dict().get("transformers_weights"):
        raise ConfigError(
            f"{field}={path}: config.json names {own} as transformers_weights, and vLLM would read other files. Remove "
            "that, and give the file one of the usual names."
        )
    stored = _stored(path, field, revision)
    _check_dtypes(stored, f"{field}={path}")
    model, report = _try_to_load(config, auto, stored, f"{field}={path}")
    missing = set(report["missing_keys"]) - optional
    if served:
        missing |= _misnamed(model, stored)
    unexpected = {
        name
        for name in set(report["unexpected_keys"]) - unread
        if not any(fnmatch(name, pattern) for pattern in _IGNORED)
    }
    wrong = [
        f"{name} is {list(there)}, and config.json makes it {list(here)}"
        for name, there, here in sorted(report["mismatched_keys"])
    ]
    problems = []
    if missing:
        problems.append(f"{len(missing)} weights are missing ({_some(missing)})")
    if unexpected:
        problems.append(f"{len(unexpected)} weights are not the model's ({_some(unexpected)})")
    if wrong:
        problems.append(f"{len(wrong)} weights have another shape ({'; '.join(wrong[:_NAMED])})")
    if problems:
        raise ConfigError(
            f"{field}={path}: the checkpoint does not fit its config.json as a {type(model).__name__}: "
            f"{'; '.join(problems)}.{_advice(stored, missing)}"
        )
    if served:
        _check_tied(path, model, stored, field)


def _stored(path: str, field: str, revision: str) -> dict[str, Stored]:
    """The tensors of a checkpoint, by name."""
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
    """The tensors of a hub id, read from the headers of its files; or the folder that the files have been loaded to."""
    with contextlib.suppress(OSError):  # whatever is in the cache may be there without a network, or incomplete
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
    except Exception as error:  # of the network, the hub or the file
        raise ConfigError(f"{field}={path}: its weights cannot be read from the hub ({_line(error)})") from error


def weight_files(folder: Path, field: str) -> list[Path]:
    """The files that transformers loads from a model's folder.

    Raises:
        ConfigError: there are none, one that an index names is missing, or vLLM would load others too.
    """
    if (folder / "adapter_config.json").is_file():
        raise ConfigError(
            f"{field}={folder}: adapter_config.json is there, so this is an adapter of peft and no whole model. Merge "
            "it into its base model (peft's merge_and_unload) and give the folder of the result."
        )
    for name, index in ((SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME), (WEIGHTS_NAME, WEIGHTS_INDEX_NAME)):
        files = _indexed(folder, name, index, field)
        if files:
            _check_no_others(folder, files, f"*{Path(name).suffix}", field)
            return files
    others = sorted(p.name for p in folder.iterdir() if p.suffix in (".safetensors", ".bin", ".pt", ".pth", ".gguf"))
    there = f"only {_some(set(others))}" if others else "a config.json and no weights"
    raise ConfigError(
        f"{field}={folder}: {there} (wanted: {SAFE_WEIGHTS_NAME} or {WEIGHTS_NAME}, or files that "
        f"{SAFE_WEIGHTS_INDEX_NAME} or {WEIGHTS_INDEX_NAME} lists). Give a folder with a whole Hugging Face model, or "
        "a hub id."
    )


def _indexed(folder: Path, name: str, index: str, field: str) -> list[Path]:
    """The one file, or those that the index lists; [] where there is neither."""
    if (folder / name).is_file():
        return [folder / name]
    if not (folder / index).is_file():
        return []
    try:
        listed = {str(file) for file in json.loads((folder / index).read_text(encoding="utf-8"))["weight_map"].values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{field}={folder}: {index} is no index of weights ({_line(error)})") from error
    lacking = {file for file in listed if not (folder / file).is_file()}
    if lacking or not listed:
        raise ConfigError(
            f"{field}={folder}: {index} lists files that are missing: {_some(lacking) or 'it is empty'}. Copy the "
            "whole model again."
        )
    return [folder / file for file in sorted(listed)]


def _check_no_others(folder: Path, files: list[Path], pattern: str, field: str) -> None:
    """vLLM loads every file of the kind unless an index says which, and the last one wins."""
    if pattern == "*.safetensors" and (folder / SAFE_WEIGHTS_INDEX_NAME).is_file() and len(files) > 1:
        return
    known = {"training_args.bin", "optimizer.bin", *(file.name for file in files)}
    others = {p.name for p in folder.glob(pattern) if p.name not in known and not p.name.startswith("consolidated")}
    if others:
        raise ConfigError(
            f"{field}={folder}: besides {files[0].name} there is {_some(others)}, which vLLM would load too. Move what "
            "is not this model's to another folder."
        )


def _read(file: Path, field: str) -> dict[str, Stored]:
    """The tensors of one file."""
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as tensors:
                slices = {name: tensors.get_slice(name) for name in tensors.offset_keys()}
                return {name: Stored(tuple(s.get_shape()), str(s.get_dtype())) for name, s in slices.items()}
        loaded = torch.load(file, map_location="meta", weights_only=True, mmap=zipfile.is_zipfile(file))
        kinds = {dtype: name for name, dtype in _DTYPES.items()}
        return {name: Stored(tuple(t.shape), kinds.get(t.dtype, str(t.dtype))) for name, t in loaded.items()}
    except (OSError, SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError, AttributeError) as error:
        raise ConfigError(
            f"{field}={file.parent}: {file.name} cannot be read as weights ({_line(error)}). Copy or save it again."
        ) from error


def _check_dtypes(stored: dict[str, Stored], where: str) -> None:
    quantised = {name for name, tensor in stored.items() if tensor.dtype not in _DTYPES and name.endswith("weight")}
    if quantised:
        example = min(quantised)
        raise ConfigError(
            f"{where}: {len(quantised)} weights are quantised ({example} is {stored[example].dtype}), and rlsync "
            "trains floating-point weights. Give the model as it was before quantisation."
        )


def _try_to_load(
    config: PreTrainedConfig, auto: Any, stored: dict[str, Stored], where: str
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The model without memory, and transformers' report on loading tensors of these names and shapes into it."""
    state = {
        name: torch.empty(tensor.shape, dtype=_DTYPES.get(tensor.dtype, torch.float32), device="meta")
        for name, tensor in stored.items()
    }
    try:
        with _quiet(), torch.device("meta"):
            model = auto.from_config(config, dtype=torch.float32)
    except Exception as error:  # a config that no model can be made from may raise anything
        raise ConfigError(f"{where}: transformers makes no model of this config.json ({_line(error)})") from error
    try:
        with _quiet():
            return type(model).from_pretrained(
                None,
                config=config,
                state_dict=state,
                device_map={"": "meta"},
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
    except Exception as error:  # such as an expert that is missing among those that transformers puts together
        raise ConfigError(
            f"{where}: transformers cannot put the checkpoint's weights into a {type(model).__name__}; some are "
            f"missing or have another shape ({_line(error)})"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' own report, and its bar, as messages here say the same by name."""
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def _misnamed(model: PreTrainedModel, stored: dict[str, Stored]) -> set[str]:
    """Weights that transformers found under another name, or made from a tied one."""
    return {name for name, _ in model.named_parameters()} - stored.keys()


def _check_tied(path: str, model: PreTrainedModel, stored: dict[str, Stored], field: str) -> None:
    """vLLM ties whatever config.json says; transformers leaves tensors that differ apart."""
    for target, source in model.all_tied_weights_keys.items():
        if target in stored and source in stored and Path(path).is_dir() and not _equal(Path(path), target, source):
            raise ConfigError(
                f"{field}={path}: config.json has tie_word_embeddings=true, and {target} differs from {source}. Set it "
                "to false, or remove the one that is not to be used."
            )


def _equal(folder: Path, first: str, second: str) -> bool:
    """Whether two tensors of the checkpoint have the same values, read a few rows at a time."""
    where: dict[str, Path] = {}
    for file in weight_files(folder, "model.path"):
        if file.suffix != ".safetensors":
            return True  # torch.save keeps tied tensors as one
        with safe_open(file, framework="pt") as tensors:
            where |= dict.fromkeys(set(tensors.offset_keys()) & {first, second}, file)
    with safe_open(where[first], framework="pt") as left, safe_open(where[second], framework="pt") as right:
        a, b = left.get_slice(first), right.get_slice(second)
        rows = range(0, a.get_shape()[0], _SLICE_ROWS)
        return a.get_shape() == b.get_shape() and all(
            torch.equal(a[i : i + _SLICE_ROWS], b[i : i + _SLICE_ROWS]) for i in rows
        )


def _advice(stored: dict[str, Stored], missing: set[str]) -> str:
    """A way to fix it, if the names suggest one."""
    for prefix in _WRAPPERS:
        if missing & {name.removeprefix(prefix) for name in stored if name.startswith(prefix)}:
            return f" Names have the prefix {prefix!r}, which a wrapper has left there: save the model without it."
        if missing & {prefix + name for name in stored}:
            return f" Names lack the prefix {prefix!r}: save the whole model, and not a part of it."
    return " Save or copy the whole model again, or correct its config.json."


def _some(names: set[str]) -> str:
    shown = sorted(names)[:_NAMED]
    return ", ".join(shown) + (", ..." if len(names) > _NAMED else "")


def _line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
