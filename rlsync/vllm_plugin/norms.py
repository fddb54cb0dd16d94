"""RMSNorm providers for vLLM's IR ops, in Hugging Face's rounding."""

from __future__ import annotations

from torch import Tensor
from vllm import ir

from rlsync.errors import ConfigError
from rlsync.kernels import ops

PROVIDER = "rlsync"


def rms_norm(x: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None) -> Tensor:
    return ops.rms_norm(x, _whole_rows(weight, variance_size), epsilon)


def fused_add_rms_norm(
    x: Tensor, x_residual: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """The residual is its own rounded add; the norm reads the rounded sum."""
    return ops.add_rms_norm(x, x_residual, _whole_rows(weight, variance_size), epsilon)


def _whole_rows(weight: Tensor | None, variance_size: int | None) -> Tensor:
    if weight is None or variance_size is not None:
        raise ConfigError("RMSNorm without a weight, or over a part of the row, is not supported by kernels=invariant")
    return weight


def register() -> None:
    # vLLM infers the ops' schemas from real annotations, which `from __future__ import annotations` hides.
    for function in (rms_norm, fused_add_rms_norm):
        function.__annotations__ = _resolved(function)
    ir.ops.rms_norm.register_impl(PROVIDER)(rms_norm)
    ir.ops.fused_add_rms_norm.register_impl(PROVIDER)(fused_add_rms_norm)


def _resolved(function: object) -> dict[str, object]:
    import typing

    return typing.get_type_hints(function)
