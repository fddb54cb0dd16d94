"""What a trainer rank needs to go on: the master weights that train and AdamW's moments, by PyTorch's distributed
checkpoints.

Every rank writes its own rows; a run with another number of ranks reads them all the same. Frozen weights are those
that the run began with.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint import FileSystemReader, FileSystemWriter

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
    """Read into the parts and `counters` what save_state has written. Collective."""
    reader = FileSystemReader(folder / FOLDER)
    known = reader.read_metadata().state_dict_metadata
    state = {"counters": counters}
    for name, (module, optimizer) in parts.items():
        for key, param in _trained(module):
            if f"{name}/{key}/step" in known:  # a parameter that was never updated has no moments
                moments = {moment: torch.zeros_like(param, requires_grad=False) for moment in _MOMENTS}
                optimizer.state[param] = {"step": torch.zeros((), dtype=torch.float32), **moments}
        state |= _tensors(name, module, optimizer)
    dcp.load(state, storage_reader=reader)


def _tensors(name: str, module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    tensors = {}
    for key, param in _trained(module):
        tensors[f"{name}/{key}"] = param.detach()
        for kind, value in optimizer.state.get(param, {}).items():
            tensors[f"{name}/{key}/{kind}"] = value
    return tensors


def _trained(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(key, param) for key, param in module.named_parameters() if param.requires_grad]
