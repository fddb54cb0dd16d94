"""The protocols of the raw kernels, which have no autograd, and the lookup of a device's backend."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, cast

import torch
import torch.distributed as dist

from rlsync.errors import ConfigError
from rlsync.kernels.key_paths import KeyPaths
from rlsync.kernels.row_results import DrawnTokens, RowScores

_BACKENDS = {"cpu": "rlsync.kernels.cpu", "cuda": "rlsync.kernels.triton"}
Gradients = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class Backend(Protocol):
    """The kernels of all ops on one device. In a forward pass an output value depends on its own row only.

    Shapes: T tokens, K inputs, N outputs, Hq query heads, Hkv key-value heads, D channels of a head, V vocabulary,
    S sequences, G segments. Compute dtypes are fp32 and bf16. The CPU's files are the readable reference of every
    kernel.
    """

    def matmul(
        self, x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None, leaves: int, out_dtype: torch.dtype
    ) -> torch.Tensor:
        """The product x [T, K] w [N, K]^T in the tree of `leaves` leaves, plus the bias [N], rounded once: [T, N]."""
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
        """silu(gate), rounded to the compute dtype, times up, rounded; gate and up have one shape."""
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
        """Attention of a prefix tree; results are as in packed_attention."""
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
        """Attention of new tokens of S sequences over a paged cache; arguments are as in cpu/attention.py."""
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
        """paged_attention with one row of q [S, Hq, D] for each sequence; a length of 0 is padding."""
        ...

    def write_cache(self, k: torch.Tensor, v: torch.Tensor, cache: torch.Tensor, slots: torch.Tensor) -> None:
        """Write k, v [T, Hkv, D] into a paged cache at slots [T]; a token with slot -1 is not written (GPU only)."""
        ...

    def rope(
        self, q: torch.Tensor, k: torch.Tensor, table: torch.Tensor, positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Rotate q [T, Hq, D] and k [T, Hkv, D] by the rows `positions` [T] of a rope table."""
        ...

    def logprobs(self, logits: torch.Tensor, temperature: float) -> torch.Tensor:
        """log_softmax(logits / temperature) in fp32: [T, V] -> [T, V]."""
        ...

    def draw(self, rows: torch.Tensor, seeds: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Tokens [T] int64 drawn from log-probs [T, V] by seeds [T] and positions [T]."""
        ...

    def draw_scored(
        self, logits: torch.Tensor, temperature: float, seeds: torch.Tensor, positions: torch.Tensor
    ) -> DrawnTokens:
        """Draw tokens from the log-probs of logits [T, V] fp32."""
        ...

    def row_digests(self, logits: torch.Tensor) -> torch.Tensor:
        """The digest [T] int64 of the bits of each row of logits [T, V] fp32; see cpu/row_digests.py."""
        ...

    def row_scores(
        self,
        logits: torch.Tensor,
        temperature: float,
        targets: torch.Tensor,
        seeds: torch.Tensor | None,
        positions: torch.Tensor | None,
    ) -> RowScores:
        """Results of rows of logits [T, V] fp32; arguments are as in cpu/scores.py."""
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
        """Gradient of row_scores with respect to the logits, [T, V] in `dtype`; arguments are as in cpu/scores.py."""
        ...


class GpuBackend(Backend, Protocol):
    """A backend with the kernels that only GPUs need."""

    def copy_launches(self, pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> list[Callable[[], object]]:
        """Functions that together copy the second tensor of each pair into the first, for kernels.copies.Copies."""
        ...

    def keyed_sums(self, rectangles: Sequence[Rectangle]) -> torch.Tensor:
        """The keyed sums of rectangles, as in kernels.keyed_sum.keyed_sums."""
        ...

    def finish_across(
        self,
        root: torch.Tensor,
        group: dist.ProcessGroup,
        bias: torch.Tensor | None,
        dtype: torch.dtype,
        share_memory: bool,
    ) -> torch.Tensor:
        """The tree across ranks, as in kernels.collectives.finish_across."""
        ...


if TYPE_CHECKING:  # lets the type checker compare both modules with the protocols
    from rlsync.kernels import cpu, triton
    from rlsync.kernels.keyed_sum import Rectangle

    _cpu: Backend = cpu
    _gpu: GpuBackend = triton


def backend(x: torch.Tensor) -> Backend:
    """The backend of x's device.

    Raises:
        ConfigError: the device has no backend.
    """
    return cast(Backend, _load_backend(x.device.type))


def gpu_backend(x: torch.Tensor) -> GpuBackend:
    """The backend of x's device, which must be a GPU."""
    return cast(GpuBackend, _load_backend(x.device.type))


@functools.cache
def _load_backend(device: str) -> object:
    # Loaded at first use: vLLM scans all modules when a worker starts, and fails on llvmlite's lazy objects.
    if device not in _BACKENDS:
        raise ConfigError(
            f"kernels=invariant has no kernels for device {device}, only for {', '.join(_BACKENDS)}. "
            "Use kernels=native to train without the guarantee."
        )
    return importlib.import_module(_BACKENDS[device])
