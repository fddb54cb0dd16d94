"""Trainer ranks that write their rows straight into the rollout workers' parameters: on one host, by CUDA IPC.

A rank then sends no worker more than that worker keeps, and nothing is gathered. Where a row goes is what
vllm_plugin/layout.py says, which `check_layout` proves with the worker's own loader.
"""

from __future__ import annotations

import logging
import socket
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from rlsync.errors import DivergenceError, RlsyncError
from rlsync.weight_sync.digest import Part
from rlsync.weight_sync.ipc import Handle, handle_of, open_handle
from rlsync.weight_sync.plan import ParamSpec, torch_dtype
from rlsync.weight_sync.transport import Channel

_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class SharedPart:
    """A part of a tensor, in a worker's memory."""

    name: str
    row: int
    column: int
    columns: int
    handle: Handle


@dataclass(slots=True, kw_only=True)
class Offer:
    """What a worker lets the trainer ranks of its host write to."""

    host: str
    parts: list[SharedPart]


def offer(parts: Sequence[Part]) -> Offer | None:
    """Of all that a worker keeps, or None where its memory cannot be shared; nothing may move it from now on."""
    try:
        shared = [
            SharedPart(name=p.name, row=p.row, column=p.column, columns=p.columns, handle=handle_of(p.values))
            for p in parts
        ]
    except RuntimeError as error:
        _warn("shared", error)
        return None
    return Offer(host=socket.gethostname(), parts=shared)


def make_offer(channel: Channel, make: Callable[[], Offer | None]) -> bool:
    """Of a worker to the rank that feeds it; whether the trainer takes it. What `make` raises goes there too."""
    key = f"offer{channel.rank}"
    try:
        made = make()
    except Exception as error:
        known = isinstance(error, RlsyncError)
        told = str(error) if known else f"a rollout worker failed: {type(error).__name__}: {error}"
        channel.leave(key, {"error": told, "diverges": isinstance(error, DivergenceError)})
        raise
    channel.leave(key, {"offer": None if made is None else asdict(made)})
    return bool(channel.find("direct"))


def find_offers(channel: Channel) -> list[Offer | None]:
    """Of the workers that a rank feeds, which wait for its `answer`.

    Raises:
        RlsyncError: what a worker has raised.
    """
    found = [channel.find(f"offer{rank}") for rank in range(1, channel.world)]
    for each in found:
        if "error" in each:
            raise (DivergenceError if each["diverges"] else RlsyncError)(each["error"])
    return [_offer(each["offer"]) for each in found]


def _offer(values: dict[str, Any] | None) -> Offer | None:
    """From what JSON holds of it."""
    if values is None:
        return None
    return Offer(host=values["host"], parts=[SharedPart(**part) for part in values["parts"]])


def answer(channel: Channel, takes: bool) -> None:
    channel.leave("direct", takes)


def open_offers(offers: Sequence[Offer | None], device: torch.device) -> dict[str, list[Part]] | None:
    """All workers' parts by tensor; None if one of them offers nothing or cannot be written to by `device`."""
    parts = []
    for each in offers:
        if each is None or each.host != socket.gethostname():
            return None
        for p in each.parts:
            try:
                values = open_handle(p.handle, device)
            except RuntimeError as error:
                _warn("opened", error)
                return None
            parts.append(Part(name=p.name, values=values, row=p.row, column=p.column, columns=p.columns))
    return by_name(parts)


def by_name(parts: Iterable[Part]) -> dict[str, list[Part]]:
    """The parts of each tensor, in order."""
    found: dict[str, list[Part]] = {}
    for part in parts:
        found.setdefault(part.name, []).append(part)
    return found


def _warn(what: str, error: RuntimeError) -> None:
    _log.warning("weights go in messages, as a worker's memory cannot be %s: %s", what, str(error).split("\n")[0])


def overlap(rows: Part, target: Part) -> tuple[torch.Tensor, torch.Tensor] | None:
    """What the rectangle `target` of a tensor has of `rows`, whole rows of the same: as it lies there, and here."""
    low = max(rows.row, target.row)
    high = min(rows.row + len(rows.values), target.row + len(target.values))
    if low >= high:
        return None
    source = _columns(rows.values[low - rows.row : high - rows.row], target)
    return target.values[low - target.row : high - target.row], source


def _columns(rows: torch.Tensor, target: Part) -> torch.Tensor:
    return rows if rows.ndim == 1 else rows[:, target.column : target.column + target.values.shape[1]]


def check_layout(
    specs: Sequence[ParamSpec],
    parts: Sequence[Part],
    load: Callable[[Iterable[tuple[str, torch.Tensor]]], object],
) -> None:
    """Let `load` load random tensors and look for them in `parts`. The weights are lost.

    Raises:
        DivergenceError: a part is not where `load` put it, or is of no tensor.
    """
    device = parts[0].values.device
    load(_random_tensors(specs, device))
    mine = by_name(parts)
    wrong = set(mine)
    for name, tensor in _random_tensors(specs, device):
        if all(torch.equal(_columns(tensor[p.row : p.row + len(p.values)], p), p.values) for p in mine.get(name, ())):
            wrong.discard(name)
    if wrong:
        raise DivergenceError(
            f"weight layout: vLLM loads {', '.join(sorted(wrong))} elsewhere than rlsync takes it to lie. This vLLM "
            "lays out the model in a way that rlsync does not know; kernels=native trains with it."
        )


def _random_tensors(specs: Sequence[ParamSpec], device: torch.device) -> Iterator[tuple[str, torch.Tensor]]:
    """The same values for a name whenever they are asked for."""
    generator = torch.Generator(device)
    for spec in specs:
        generator.manual_seed(zlib.crc32(spec.name.encode()))
        yield spec.name, torch.randn(spec.shape, generator=generator, device=device, dtype=torch_dtype(spec.dtype))
