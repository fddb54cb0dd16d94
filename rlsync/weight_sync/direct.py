"""Direct sync: trainer ranks write their rows into the parameters of rollout workers on the same host, by CUDA IPC.

A worker receives only what it keeps, and nothing is gathered. vllm_plugin/layout.py says where each part of a tensor
lies in a worker's memory, and `check_layout` proves it with the worker's own loader.
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
    """A part of a canonical tensor in a worker's memory. Fields are as in `Part`, with a handle in place of values."""

    name: str
    row: int
    column: int
    columns: int
    handle: Handle
    """CUDA IPC handle of the values."""


@dataclass(slots=True, kw_only=True)
class Offer:
    """The memory of a worker that trainer ranks of the same host may write to."""

    host: str
    """Host name of the worker."""
    parts: list[SharedPart]
    """All parts that the worker keeps."""


def offer(parts: Sequence[Part]) -> Offer | None:
    """Share the memory of all parts that a worker keeps. It must not move from now on.

    Returns:
        The offer, or None if the memory cannot be shared.
    """
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
    """Make a worker's offer to the rank that feeds it.

    Args:
        channel: the worker's weight channel.
        make: makes the offer. If it raises, the trainer rank is told of the error and raises it too.

    Returns:
        Whether the trainer ranks will write into this worker's memory.
    """
    key = f"offer{channel.rank}"
    try:
        made = make()
    except Exception as error:  # whatever it is, the trainer rank that waits for the offer must be told
        known = isinstance(error, RlsyncError)
        message = str(error) if known else f"a rollout worker failed: {type(error).__name__}: {error}"
        channel.leave(key, {"error": message, "diverges": isinstance(error, DivergenceError)})
        raise
    channel.leave(key, {"offer": None if made is None else asdict(made)})
    return bool(channel.find("direct"))


def find_offers(channel: Channel) -> list[Offer | None]:
    """Receive the offers of the workers that a rank feeds. The workers then wait for its `answer`.

    Raises:
        RlsyncError: a worker failed to make its offer; a DivergenceError if the worker raised one.
    """
    found = [channel.find(f"offer{rank}") for rank in range(1, channel.world)]
    for each in found:
        if "error" in each:
            raise (DivergenceError if each["diverges"] else RlsyncError)(each["error"])
    return [_offer(each["offer"]) for each in found]


def _offer(values: dict[str, Any] | None) -> Offer | None:
    """An offer from its JSON values."""
    if values is None:
        return None
    return Offer(host=values["host"], parts=[SharedPart(**part) for part in values["parts"]])


def answer(channel: Channel, takes: bool) -> None:
    """Tell the workers on a channel whether the trainer ranks will write into their memory."""
    channel.leave("direct", takes)


def open_offers(offers: Sequence[Offer | None], device: torch.device) -> dict[str, list[Part]] | None:
    """Open the offered memory of all workers for writes by `device`.

    Returns:
        The parts of each tensor by its name; None if a worker offers nothing, is on another host or cannot be opened.
    """
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
    """Group parts by the name of their tensor; their order is kept."""
    found: dict[str, list[Part]] = {}
    for part in parts:
        found.setdefault(part.name, []).append(part)
    return found


def _warn(what: str, error: RuntimeError) -> None:
    reason = str(error).split("\n")[0]
    _log.warning("the weight sync uses messages, because a worker's memory cannot be %s: %s", what, reason)


def overlap(rows: Part, target: Part) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The overlap of two parts of one tensor.

    Args:
        rows: whole rows of the tensor.
        target: any part of it.

    Returns:
        Views of the common elements in `target` and in `rows`; None if there are no common rows.
    """
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
    """Check the layout of a worker's parameters: let `load` load random tensors, and look for them in `parts`.

    The weights are lost.

    Args:
        specs: the canonical tensors.
        parts: the worker's parameters, with the places that rlsync assumes.
        load: the loader of the worker's model.

    Raises:
        DivergenceError: a part does not hold what was loaded, or belongs to no tensor.
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
            f"weight layout: vLLM does not load {', '.join(sorted(wrong))} to where rlsync expects it. This version of "
            "vLLM lays out the model in a way that rlsync does not know. Use kernels=native to train with it."
        )


def _random_tensors(specs: Sequence[ParamSpec], device: torch.device) -> Iterator[tuple[str, torch.Tensor]]:
    """Random tensors by name; a tensor has the same values in every call."""
    generator = torch.Generator(device)
    for spec in specs:
        generator.manual_seed(zlib.crc32(spec.name.encode()))
        yield spec.name, torch.randn(spec.shape, generator=generator, device=device, dtype=torch_dtype(spec.dtype))
