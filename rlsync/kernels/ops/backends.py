"""The raw kernels that every device has, without autograd, and the module that holds a device's."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, cast

import torch
import torch.distributed as dist

from rlsync.errors import ConfigError
from rlsync.kernels.key_paths import KeyPaths

_BACKENDS = {"cpu": "rlsync.kernels.cpu", "cuda": "rlsync.kernels.triton"}
Gradients = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class Backend(Protocol):
    """The forward passes of all ops on one device. An output value depends on its own row only.

    Shapes: T tokens, K inputs, N outputs, Hq and Hkv heads, D channels of a head, V vocabulary, S sequences,
    G segments. Model dtypes are fp32 and bf16. The CPU's files are the readable reference of each kernel.
    """

    def matmul(
        self, x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None, leaves: int, out_dtype: torch.dtype
    ) -> torch.Tensor:
        """x [T, K] w [N, K]^T, K summed in the tree of `leaves` leaves, plus the bias [N], rounded once: [T, N]."""
        ...

    def rms_norm(self, x: torch.Tensor, w: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
        """RMSNorm of x [..., K], and the rows' reciprocal root mean squares [T, 1] fp32."""
        ...

    def add_rms_norm(
        self, x: torch.Tensor, residual: torch.Tensor, w: torch.Tensor, eps: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """RMSNorm of the rounded sum x + residual [..., K], and that sum."""
        ...

    def silu_and_mul(self, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        """round(silu(gate)) * up, rounded; any shape."""
        ...

    def packed_attention(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, starts: torch.Tensor, scale: float, window: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Attention of a plain pack: [T, Hq, D], and the log-sum-exp of each row's scores [T, Hq] fp32."""
        ...

    def tree_attention(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        starts: torch.Tensor,
        paths: KeyPaths,
        scale: float,
        window: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Attention of a prefix tree; results as packed_attention."""
        ...

    def packed_attention_backward(
        self,
        grad: torch.Tensor,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        out: torch.Tensor,
        lse: torch.Tensor,
        starts: torch.Tensor,
        scale: float,
        window: int,
        longest: int,
    ) -> Gradients:
        """Gradients of q, k and v of packed_attention, whose results are `out` and `lse`."""
        ...

    def tree_attention_backward(
        self,
        grad: torch.Tensor,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        out: torch.Tensor,
        lse: torch.Tensor,
        starts: torch.Tensor,
        paths: KeyPaths,
        scale: float,
        window: int,
        longest: int,
    ) -> Gradients:
        """Gradients of q, k and v of tree_attention."""
        ...

    def paged_attention(
        self,
        q: torch.Tensor,
        cache: torch.Tensor,
        table: torch.Tensor,
        starts: torch.Tensor,
        lengths: torch.Tensor,
        scale: float,
        window: int,
        out: torch.Tensor | None,
    ) -> torch.Tensor:
        """Attention of the last rows of S sequences over a paged cache; arguments as in cpu/attention.py."""
        ...

    def decode_attention(
        self,
        q: torch.Tensor,
        cache: torch.Tensor,
        table: torch.Tensor,
        lengths: torch.Tensor,
        scale: float,
        window: int,
        out: torch.Tensor | None,
    ) -> torch.Tensor:
        """paged_attention with one row of q [S, Hq, D] for each sequence; length 0 stands for no sequence."""
        ...

    def write_cache(self, k: torch.Tensor, v: torch.Tensor, cache: torch.Tensor, slots: torch.Tensor) -> None:
        """Write k, v [T, Hkv, D] into a paged cache at slots [T]; a slot of -1 is left out."""
        ...

    def rope(
        self, q: torch.Tensor, k: torch.Tensor, table: torch.Tensor, positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Rotate q [T, Hq, D] and k [T, Hkv, D] by the rows `positions` [T] of a rope table."""
        ...

    def logprobs(self, logits: torch.Tensor, temperature: float) -> torch.Tensor:
        """log_softmax(logits / temperature): [T, V] fp32 -> [T, V] fp32."""
        ...

    def draw(self, rows: torch.Tensor, seeds: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Tokens [T] int64 drawn from log-probs [T, V] by seeds [T] and positions [T]."""
        ...

    def draw_scored(
        self, logits: torch.Tensor, temperature: float, seeds: torch.Tensor, positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens [T] int64 drawn from the log-probs of logits [T, V] fp32, and their log-probs [T] fp32."""
        ...

    def row_scores(
        self,
        logits: torch.Tensor,
        temperature: float,
        targets: torch.Tensor,
        seeds: torch.Tensor | None,
        positions: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """What is kept of rows of logits [T, V] fp32; arguments and results as in cpu/scores.py."""
        ...

    def logit_grads(
        self,
        logits: torch.Tensor,
        temperature: float,
        targets: torch.Tensor,
        stats: torch.Tensor,
        grad: torch.Tensor,
        dtype: torch.dtype,
        entropy: torch.Tensor | None = None,
        entropy_grad: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Gradient by the logits of what row_scores gives; arguments as in cpu/scores.py. [T, V] in `dtype`."""
        ...


class GpuBackend(Backend, Protocol):
    """A backend with the kernels that only GPUs need."""

    def copy_launches(self, pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> list[Callable[[], object]]:
        """Functions that together copy the second tensor of each pair into the first, as kernels.copies.Copies."""
        ...

    def keyed_sums(self, rectangles: Sequence[Rectangle]) -> torch.Tensor:
        """As kernels.keyed_sum.keyed_sums."""
        ...

    def finish_across(
        self,
        root: torch.Tensor,
        group: dist.ProcessGroup,
        bias: torch.Tensor | None,
        dtype: torch.dtype,
        share_memory: bool,
    ) -> torch.Tensor:
        """As kernels.collectives.finish_across."""
        ...


if TYPE_CHECKING:  # the type checker compares both modules with the protocols
    from rlsync.kernels import cpu, triton
    from rlsync.kernels.keyed_sum import Rectangle

    _cpu: Backend = cpu
    _gpu: GpuBackend = triton


def backend(x: torch.Tensor) -> Backend:
    """The kernels of x's device.

    Raises:
        ConfigError: there are none for that device.
    """
    return cast(Backend, _load_backend(x.device.type))


def gpu_backend(x: torch.Tensor) -> GpuBackend:
    """The kernels of x's device, which is a GPU."""
    return cast(GpuBackend, _load_backend(x.device.type))


@functools.cache
def _load_backend(device: str) -> object:
    # Loaded at first use: vLLM scans all modules when a worker starts, and stumbles over llvmlite's lazy objects.
    if device not in _BACKENDS:
        raise ConfigError(
            f"kernels=invariant has no kernels for device {device}, only for {', '.join(_BACKENDS)}. "
            "kernels=native trains without the guarantee."
        )
    return importlib.import_module(_BACKENDS[device])
