"""Low-rank adapters whose forward is that of one merged weight.

The forward multiplies with W = W0 + s B A alone, made once an update and rounded once, which is also what the rollout
engine gets: x W0 + s (x A) B would round otherwise. A and B have their gradients all the same, of W's formula.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from rlsync.config.lora import LoraConfig
from rlsync.kernels.ops import backend

_ADAPTER_PARAMETERS = ("lora_a", "lora_b")


class _LowRankGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y, x, a, b, scale):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x, a, b)
        ctx.scale = scale
        return y.view_as(y)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        x, a, b = ctx.saved_tensors
        kind = x.dtype if x.is_cuda else torch.float32  # bf16 products are slow on a CPU
        rows, inputs = (t.reshape(-1, t.shape[-1]).to(kind) for t in (grad, x))
        down = inputs @ a.to(kind).t()  # [T, rank]
        grad_a = ctx.scale * ((rows @ b.to(kind)).t() @ inputs)
        grad_b = ctx.scale * (rows.t() @ down)
        return grad, None, grad_a.to(a.dtype), grad_b.to(b.dtype), None


class LoraLinear(nn.Linear):
    """Over a linear layer whose weight is merged (a mix-in before its class)."""

    lora_a: nn.Parameter
    """[rank, in]"""
    lora_b: nn.Parameter
    """[out, rank]"""
    lora_scale: float

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _LowRankGradient.apply(super().forward(x), x, self.lora_a, self.lora_b, self.lora_scale)


def add_lora(model: nn.Module, config: LoraConfig, seed: int) -> None:
    """Give the target layers adapters, A as in peft (uniform, 1 / sqrt(in)) and B zero, and freeze all else."""
    generator = np.random.Generator(np.random.Philox(seed))
    model.requires_grad_(False)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in config.targets:
            bound = 1.0 / math.sqrt(module.in_features)
            a = generator.uniform(-bound, bound, (config.rank, module.in_features))
            module.__class__ = _with_lora(type(module))  # type: ignore[arg-type]
            module.lora_a = nn.Parameter(torch.from_numpy(a).to(module.weight))
            module.lora_b = nn.Parameter(torch.zeros(module.out_features, config.rank).to(module.weight))
            module.lora_scale = config.scale  # type: ignore[assignment]


def lora_layers(model: nn.Module) -> Iterator[tuple[str, LoraLinear]]:
    """(name, layer) of every layer with an adapter."""
    for name, module in model.named_modules():
        if isinstance(module, LoraLinear):
            yield name, module


def is_adapter(name: str) -> bool:
    """Whether a parameter's name is that of an A or B."""
    return name.rpartition(".")[2] in _ADAPTER_PARAMETERS


def merged_rows(base: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float) -> torch.Tensor:
    """Rows of W0 + s B A, fp32: base [rows, in], a [rank, in], b [rows, rank]. A row does not depend on the others."""
    product = backend(b).matmul(b.float(), a.float().t().contiguous(), None, 1, torch.float32)
    return base.float() + scale * product


@functools.cache
def _with_lora(base: type[nn.Linear]) -> type[nn.Linear]:
    return type(f"Lora{base.__name__}", (LoraLinear, base), {})
