"""Implementations of vLLM's RMSNorm ops that round as Hugging Face's models do."""

from __future__ import annotations

from torch import Tensor
from vllm import ir

from rlsync.errors import ConfigError
from rlsync.kernels import ops

PROVIDER = "rlsync"
"""Name of the implementations in vLLM (ir_op_priority)."""


def rms_norm(x: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None) -> Tensor:
    """RMSNorm of x [..., K]; raises ConfigError without a weight or for a part of the row."""
    return ops.rms_norm(x, _whole_rows(weight, variance_size), epsilon)


def fused_add_rms_norm(
    x: Tensor, x_residual: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """RMSNorm of the rounded sum x + x_residual [..., K], and that sum; raises ConfigError as `rms_norm` does."""
    return ops.add_rms_norm(x, x_residual, _whole_rows(weight, variance_size), epsilon)


def _whole_rows(weight: Tensor | None, variance_size: int | None) -> Tensor:
    if weight is None or variance_size is not None:
        raise ConfigError(
            "an RMSNorm without a weight, or over a part of the row, is not supported by kernels=invariant; use "
            "another model or kernels=native"
        )
    return weight


def register() -> None:
    """Register the implementations with vLLM."""
    # vLLM reads the ops' schemas from annotations that are types, and `from __future__ import annotations` makes texts.
    for function in (rms_norm, fused_add_rms_norm):
        function.__annotations__ = _resolved(function)
    ir.ops.rms_norm.register_impl(PROVIDER)(rms_norm)
    ir.ops.fused_add_rms_norm.register_impl(PROVIDER)(fused_add_rms_norm)


def _resolved(function: object) -> dict[str, object]:
    import typing

    return typing.get_type_hints(function)
