"""The trainer's state in a checkpoint: trained master weights and AdamW's moments, by PyTorch's distributed checkpoint.

Every rank writes its own rows, and a run with another number of ranks can read them. Frozen weights are not stored,
because they never change.
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
"""Name of the subfolder of a checkpoint that holds the state."""
_MOMENTS = ("exp_avg", "exp_avg_sq")


def save_state(folder: Path, parts: dict[str, tuple[nn.Module, torch.optim.Optimizer]], counters: torch.Tensor) -> None:
    """Write the trainer's state (collective).

    Args:
        folder: folder of the checkpoint.
        parts: sharded modules and their AdamW optimizers, by name.
        counters: [n] int64.
    """
    state = {"counters": counters}
    for name, (module, optimizer) in parts.items():
        state |= _tensors(name, module, optimizer)
    dcp.save(state, storage_writer=FileSystemWriter(folder / FOLDER))


def load_state(folder: Path, parts: dict[str, tuple[nn.Module, torch.optim.Optimizer]], counters: torch.Tensor) -> None:
    """Read the state that `save_state` has written into the parts and `counters` (collective).

    Args:
        folder: folder of the checkpoint.
        parts, counters: as in `save_state`; they are filled in place.

    Raises:
        ConfigError: the state has other tensors, or it cannot be read.
    """
    known = saved_shapes(folder)
    state = {"counters": counters}
    for name, (module, optimizer) in parts.items():
        for key, param in _trained(module):
            if f"{name}/{key}/step" in known:  # AdamW makes the moments of a parameter at its first update
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
    """The shapes of all tensors in a checkpoint's state, by name.

    Raises:
        ConfigError: there is no state, or it cannot be read.
    """
    try:
        known: dict[str, Any] = FileSystemReader(folder / FOLDER).read_metadata().state_dict_metadata
        return {key: tensor.size for key, tensor in known.items()}
    except Exception as error:  # a damaged pickle may raise any exception
        raise _unreadable(folder, error) from error


def _check_same(folder: Path, there: dict[str, torch.Size], here: dict[str, torch.Size]) -> None:
    """Refuse a state whose tensors differ from those of this run in name or shape."""
    if there == here:
        return
    name, _ = min(there.items() ^ here.items())
    was, now = (list(shapes[name]) if name in shapes else "missing" for shapes in (there, here))
    raise ConfigError(
        f"run.resume=true: {folder / FOLDER} does not hold the tensors that this run trains: {name} is {was} there and "
        f"{now} here. Set model, model.lora and algorithm.advantage as they were, or start a new run from the "
        f"checkpoint's weights, in another run.dir, with model.path={folder}"
    )


def _unreadable(folder: Path, error: BaseException) -> ConfigError:
    message = " ".join(str(error).split()) or type(error).__name__
    return unreadable(folder / FOLDER, "a trainer's state", message[:300], str(folder))


def _tensors(name: str, module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    tensors = {}
    for key, param in _trained(module):
        tensors[f"{name}/{key}"] = param.detach()
        for kind, value in optimizer.state.get(param, {}).items():
            tensors[f"{name}/{key}/{kind}"] = value
    return tensors


def _trained(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(key, param) for key, param in module.named_parameters() if param.requires_grad]
