"""Checks that a checkpoint holds every weight of its model, by names, shapes and dtypes.

If a checkpoint lacks a weight, transformers and vLLM fill it with random numbers and continue, so this is checked
first.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import (
    logging,
)

from rlsync.config.model import MAIN
from rlsync.errors import ConfigError, first_line
from rlsync.models.weight_files import DTYPES, NAMED, Stored, some, stored_tensors, weight_files

_IGNORED = ("*rotary_emb.*", "*.attn.bias", "*.attn.masked_bias", "*position_ids")
"""Buffers in old checkpoints, which transformers and vLLM both compute themselves."""
_WRAPPERS = ("_orig_mod.", "module.", "_fsdp_wrapped_module.", "base_model.model.", "model.")
"""Prefixes that torch.compile, DDP, FSDP, PEFT and other wrappers add to every name."""
_SLICE_ROWS = 4096


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
        config: config of the model.
        auto: class of transformers that makes the model, such as AutoModelForCausalLM.
        field: configuration field of the path, for messages.
        revision: revision of a hub id; ignored for a folder.
        optional: weights that may be missing, because rlsync initialises them.
        unread: weights that the checkpoint may hold although the model does not have them.
        served: vLLM loads the checkpoint too, and knows the weights only by the names that transformers gives them.

    Raises:
        ConfigError: weights are missing, unexpected, of another shape, quantised or unreadable.
    """
    if own := config.to_dict().get("transformers_weights"):
        raise ConfigError(
            f"{field}={path}: config.json names {own} as transformers_weights, but vLLM would read other files. Remove "
            "that entry, and give the file one of the usual names."
        )
    stored = stored_tensors(path, field, revision)
    _check_dtypes(stored, f"{field}={path}")
    model, report = _try_to_load(config, auto, stored, f"{field}={path}")
    missing = set(report["missing_keys"]) - optional
    if served:
        missing |= _misnamed(model, stored)
    problems = _problems(report, missing, unread)
    if problems:
        raise ConfigError(
            f"{field}={path}: the checkpoint does not fit its config.json as a {type(model).__name__}: "
            f"{'; '.join(problems)}.{_advice(stored, missing)}"
        )
    if served:
        _check_tied(path, model, stored, field)


def _problems(report: dict[str, Any], missing: set[str], unread: frozenset[str]) -> list[str]:
    """Describe what does not fit, from transformers' report on loading the weights."""
    unexpected = {
        name
        for name in set(report["unexpected_keys"]) - unread
        if not any(fnmatch(name, pattern) for pattern in _IGNORED)
    }
    wrong = [
        f"{name} has shape {list(there)}, but config.json asks for {list(here)}"
        for name, there, here in sorted(report["mismatched_keys"])
    ]
    problems = []
    if missing:
        problems.append(f"{len(missing)} weights are missing ({some(missing)})")
    if unexpected:
        problems.append(f"{len(unexpected)} weights do not belong to the model ({some(unexpected)})")
    if wrong:
        problems.append(f"{len(wrong)} weights have another shape ({'; '.join(wrong[:NAMED])})")
    return problems


def _check_dtypes(stored: dict[str, Stored], where: str) -> None:
    quantised = {name for name, tensor in stored.items() if tensor.dtype not in DTYPES and name.endswith("weight")}
    if quantised:
        example = min(quantised)
        raise ConfigError(
            f"{where}: {len(quantised)} weights are quantised ({example} is {stored[example].dtype}), but rlsync "
            "trains floating-point weights only. Use the model as it was before quantisation."
        )


def _try_to_load(
    config: PreTrainedConfig, auto: Any, stored: dict[str, Stored], where: str
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The model on the meta device, and transformers' report on loading tensors of these names and shapes into it."""
    state = {
        name: torch.empty(tensor.shape, dtype=DTYPES.get(tensor.dtype, torch.float32), device="meta")
        for name, tensor in stored.items()
    }
    try:
        with _quiet(), torch.device("meta"):
            model = auto.from_config(config, dtype=torch.float32)
    except Exception as error:  # a config from which no model can be made may raise any exception
        raise ConfigError(
            f"{where}: transformers cannot make a model from this config.json ({first_line(error)})"
        ) from error
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
    except Exception as error:  # for example if one of the experts that transformers merges is missing
        raise ConfigError(
            f"{where}: transformers cannot load the checkpoint's weights into a {type(model).__name__}, because some "
            f"are missing or have another shape ({first_line(error)})"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress transformers' loading report and progress bar; the errors of this module name the same weights."""
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
    """Weights that the checkpoint does not hold under the model's own name for them."""
    return {name for name, _ in model.named_parameters()} - stored.keys()


def _check_tied(path: str, model: PreTrainedModel, stored: dict[str, Stored], field: str) -> None:
    """Refuse tied weights that differ: vLLM ties them as config.json says, and transformers keeps both."""
    for target, source in model.all_tied_weights_keys.items():
        if target in stored and source in stored and Path(path).is_dir() and not _equal(Path(path), target, source):
            raise ConfigError(
                f"{field}={path}: config.json has tie_word_embeddings=true, but {target} differs from {source}. Set "
                "tie_word_embeddings=false, or remove the tensor that is not to be used."
            )


def _equal(folder: Path, first: str, second: str) -> bool:
    """Whether two tensors of the checkpoint have the same values, read a few rows at a time."""
    where: dict[str, Path] = {}
    for file in weight_files(folder, "model.path"):
        if file.suffix != ".safetensors":
            return True  # torch.save stores tied tensors once
        with safe_open(file, framework="pt") as tensors:
            where |= dict.fromkeys(set(tensors.offset_keys()) & {first, second}, file)
    with safe_open(where[first], framework="pt") as left, safe_open(where[second], framework="pt") as right:
        a, b = left.get_slice(first), right.get_slice(second)
        rows = range(0, a.get_shape()[0], _SLICE_ROWS)
        return a.get_shape() == b.get_shape() and all(
            torch.equal(a[i : i + _SLICE_ROWS], b[i : i + _SLICE_ROWS]) for i in rows
        )


def _advice(stored: dict[str, Stored], missing: set[str]) -> str:
    """Advice on how to fix the checkpoint, which depends on the names of its weights."""
    for prefix in _WRAPPERS:
        if missing & {name.removeprefix(prefix) for name in stored if name.startswith(prefix)}:
            return f" The names have the prefix {prefix!r}, which a wrapper has added. Save the model without it."
        if missing & {prefix + name for name in stored}:
            return f" The names lack the prefix {prefix!r}. Save the whole model, and not only a part of it."
    return " Save or copy the whole model again, or correct its config.json."
