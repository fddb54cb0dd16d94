"""Linear layers, embedding and head of vLLM on rlsync's ops, through its quantisation-method hook."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import Parameter
from vllm.distributed import get_tp_group
from vllm.model_executor.layers.linear import LinearBase, RowParallelLinear, UnquantizedLinearMethod
from vllm.model_executor.layers.quantization.base_config import QuantizationConfig, QuantizeMethodBase
from vllm.model_executor.layers.vocab_parallel_embedding import (
    ParallelLMHead,
    UnquantizedEmbeddingMethod,
    VocabParallelEmbedding,
)
from vllm.model_executor.utils import set_weight_attrs

from rlsync.errors import ConfigError
from rlsync.kernels import ops, order
from rlsync.kernels.collectives import finish_across, gather_columns
from rlsync.kernels.row_ops import share_of
from rlsync.vllm_plugin.settings import current_settings


class InvariantLinearMethod(UnquantizedLinearMethod):
    """Whole-K products; weights stay as loaded, so that a sync can write into them."""

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        pass

    def apply(self, layer: Any, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        return ops.linear(x, layer.weight, bias)


class InvariantEmbeddingMethod(UnquantizedEmbeddingMethod):
    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        pass

    def apply(self, layer: Any, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """fp32 logits of a head."""
        if bias is not None:
            raise ConfigError("a head with a bias is not supported by kernels=invariant")
        return ops.lm_head(x, layer.weight)

    def embedding(self, layer: Any, ids: torch.Tensor) -> torch.Tensor:
        return ops.embedding(ids, layer.weight)


class InvariantQuantizationConfig(QuantizationConfig):
    """Quantises nothing: the name by which vLLM hands its linears over."""

    def get_name(self) -> str:  # type: ignore[override]
        return "rlsync"

    def get_supported_act_dtypes(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float32]

    @classmethod
    def get_min_capability(cls) -> int:
        return 80

    @staticmethod
    def get_config_filenames() -> list[str]:
        return []

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> InvariantQuantizationConfig:
        return cls()

    def get_quant_method(self, layer: torch.nn.Module, prefix: str) -> QuantizeMethodBase | None:
        if isinstance(layer, (VocabParallelEmbedding, ParallelLMHead)):
            return InvariantEmbeddingMethod()
        return InvariantLinearMethod() if isinstance(layer, LinearBase) else None


class InvariantRowParallelLinear(RowParallelLinear):
    """o_proj and down_proj: the tree across ranks, or the gather form."""

    weight: Parameter

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        settings = current_settings()
        self.gathers = settings.row_parallel == "gather"
        self.shares_memory = settings.all_reduce == "auto"
        if self.skip_bias_add or not self.input_is_parallel or not self.reduce_results:
            raise ConfigError(f"{self.prefix}: this use of a row-parallel layer is not supported by kernels=invariant")
        if self.gathers:
            _, self.columns = share_of(self.output_size, self.tp_size, 0)
            self._hold_output_columns()
        else:
            order.check_leaves_divide(self.prefix, self.input_size, settings.leaves)
            self.local_leaves = order.local_leaves(settings.leaves, self.tp_size)

    def _hold_output_columns(self) -> None:
        """Replace the weight [N, K / tp] by [ceil(N / tp), K], zero where the last rank has fewer columns."""
        weight = Parameter(
            torch.zeros(self.columns, self.input_size, dtype=self.params_dtype, device=self.weight.device),
            requires_grad=False,
        )
        set_weight_attrs(weight, {"weight_loader": self._load_columns, "output_dim": 0})
        self.register_parameter("weight", weight)

    def _load_columns(self, param: Parameter, loaded: torch.Tensor) -> None:
        begin, end = self.column_range
        param.data[: end - begin].copy_(loaded[begin:end])

    @property
    def column_range(self) -> tuple[int, int]:
        """Output columns of this rank in the gather form."""
        return share_of(self.output_size, self.tp_size, self.tp_rank)

    def forward(self, input_: torch.Tensor) -> Any:
        y = self._gather_form(input_) if self.gathers else self._tree_form(input_)
        return (y, None) if self.return_bias else y

    def _tree_form(self, x: torch.Tensor) -> torch.Tensor:
        if self.tp_size == 1:
            return ops.row_parallel_linear(x, self.weight, self.bias, leaves=self.local_leaves)
        root = ops.row_parallel_root(x, self.weight, self.local_leaves)
        group = get_tp_group().device_group
        return finish_across(root, group, self.bias, x.dtype, share_memory=self.shares_memory)

    def _gather_form(self, x: torch.Tensor) -> torch.Tensor:
        if self.tp_size == 1:
            return ops.linear(x, self.weight, self.bias)
        group = get_tp_group().device_group
        bias = None
        if self.bias is not None:
            begin, end = self.column_range
            bias = torch.nn.functional.pad(self.bias[begin:end], (0, self.columns - (end - begin)))
        y = ops.linear(gather_columns(x, group), self.weight, bias)
        return gather_columns(y, group)[..., : self.output_size].contiguous()
