"""What a trainer rank needs to go on: the master weights that train and AdamW's moments, by PyTorch's distributed
checkpoints.

Every rank writes its own rows; a run with another number of ranks reads them all the same. Frozen weights are those
that the run began with.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint import CheckpointException, FileSystemReader, FileSystemWriter

from rlsync.errors import ConfigError, unreadable

FOLDER = "state"
"""Within a checkpoint's folder."""
_MOMENTS = ("exp_avg", "exp_avg_sq")


def save_state(folder: Path, parts: dict[str, tuple[nn.Module, torch.optim.Optimizer]], counters: torch.Tensor) -> None:
    """Write the parts (by name: a sharded module and its AdamW) and `counters` [n] int64. Collective."""
    state = {"counters": counters}
    for name, (module, optimizer) in parts.items():
        state |= _tensors(name, module, optimizer)
    dcp.save(state, storage_writer=FileSystemWriter(folder / FOLDER))


def load_state(folder: Path, parts: dict[str, tuple[nn.Module, torch.optim.Optimizer]], counters: torch.Tensor) -> None:
    """Read into the parts and `counters` what save_state has written. Collective.

    Raises:
        ConfigError: it has written other tensors, or they cannot be read.
    """
    known = saved_shapes(folder)
    state = {"counters": counters}
    for name, (module, optimizer) in parts.items():
        for key, param in _trained(module):
            if f"{name}/{key}/step" in known:  # a parameter that was never updated has no moments
                moments = {moment: torch.zeros_like(param, requires_grad=False) for moment in _MOMENTS}
                optimizer.state[param] = {"step": torch.zeros((), dtype=torch.float32), **moments}
        state |= _tensors(name, module, optimizer)
    _check_same(folder, known, {key: tensor.shape for key, tensor in state.items()})
    try:
        dcp.load(state, storage_reader=FileSystemReader(folder / FOLDER))
    except CheckpointException as error:
        cause, _ = next(iter(error.failures.values()))
        raise _unreadable(folder, cause) from error


def saved_shapes(folder: Path) -> dict[str, torch.Size]:
    """The shape of every tensor in the state, by name.

    Raises:
        ConfigError: there is no state, or it cannot be read.
    """
    try:
        known: dict[str, Any] = FileSystemReader(folder / FOLDER).read_metadata().state_dict_metadata
        return {key: tensor.size for key, tensor in known.items()}
    except Exception as error:  # a broken pickle raises anything
        raise _unreadable(folder, error) from error


def _check_same(folder: Path, there: dict[str, torch.Size], here: dict[str, torch.Size]) -> None:
    if there == here:
        return
    name, _ = min(there.items() ^ here.items())
    was, now = (list(shapes[name]) if name in shapes else "missing" for shapes in (there, here))
    raise ConfigError(
        f"run.resume=true: {folder / FOLDER} holds other tensors than this run trains: {name} is {was} there and {now} "
        "here. Set model, model.lora and algorithm.advantage as the run had them, or begin with its weights, in "
        f"another run.dir: model.path={folder}"
    )


def _unreadable(folder: Path, error: BaseException) -> ConfigError:
    told = " ".join(str(error).split()) or type(error).__name__
    return unreadable(folder / FOLDER, "a trainer's state", told[:300], str(folder))


def _tensors(name: str, module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    tensors = {}
    for key, param in _trained(module):
        tensors[f"{name}/{key}"] = param.detach()
        for kind, value in optimizer.state.get(param, {}).items():
            tensors[f"{name}/{key}/{kind}"] = value
    return tensors


def _trained(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(key, param) for key, param in module.named_parameters() if param.requires_grad]
