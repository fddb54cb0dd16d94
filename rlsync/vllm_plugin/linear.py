"""vLLM's linear layers, embedding and head on rlsync's ops, through vLLM's interface for quantization methods."""

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
    """Linear layers with `ops.linear`. Weights stay as they were loaded, so that a sync can write into them."""

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        """Leave the weights as they are."""

    def apply(self, layer: Any, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """[..., K] -> [..., N]."""
        return ops.linear(x, layer.weight, bias)


class InvariantEmbeddingMethod(UnquantizedEmbeddingMethod):
    """Computes the token embedding with `ops.embedding`, and the LM head with `ops.lm_head`."""

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        """Leave the weights as they are."""

    def apply(self, layer: Any, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """The fp32 logits of an LM head; raises ConfigError if it has a bias."""
        if bias is not None:
            raise ConfigError(
                "an LM head with a bias is not supported by kernels=invariant; use another model or kernels=native"
            )
        return ops.lm_head(x, layer.weight)

    def embedding(self, layer: Any, ids: torch.Tensor) -> torch.Tensor:
        """[...] token ids -> [..., hidden]."""
        return ops.embedding(ids, layer.weight)


class InvariantQuantizationConfig(QuantizationConfig):
    """A no-op quantization config. vLLM asks it for the method of each linear layer, which is then one of rlsync's."""

    def get_name(self) -> str:  # type: ignore[override]
        """The name under which vLLM knows the config."""
        return "rlsync"

    def get_supported_act_dtypes(self) -> list[torch.dtype]:
        """The compute dtypes that the kernels support."""
        return [torch.bfloat16, torch.float32]

    @classmethod
    def get_min_capability(cls) -> int:
        """The lowest compute capability, 8.0, as vLLM writes it."""
        return 80

    @staticmethod
    def get_config_filenames() -> list[str]:
        """The config files of a checkpoint that vLLM should read: none."""
        return []

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> InvariantQuantizationConfig:  # noqa: ARG003 (vLLM's interface)
        """Make the config; it has no settings."""
        return cls()

    def get_quant_method(self, layer: torch.nn.Module, prefix: str) -> QuantizeMethodBase | None:  # noqa: ARG002
        """The method of a layer; None for layers that are neither linear nor an embedding."""
        if isinstance(layer, (VocabParallelEmbedding, ParallelLMHead)):
            return InvariantEmbeddingMethod()
        return InvariantLinearMethod() if isinstance(layer, LinearBase) else None


class InvariantRowParallelLinear(RowParallelLinear):
    """A row-parallel layer (o_proj, down_proj): the reduction tree across ranks, or the gather form.

    Raises:
        ConfigError: the model uses the layer in a way that rlsync does not support, or the leaves do not suit it.
    """

    weight: Parameter

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        settings = current_settings()
        self.gathers = settings.row_parallel == "gather"
        self.shares_memory = settings.all_reduce == "auto"
        if self.skip_bias_add or not self.input_is_parallel or not self.reduce_results:
            raise ConfigError(
                f"{self.prefix}: kernels=invariant does not support a row-parallel layer with skip_bias_add=True, "
                "input_is_parallel=False or reduce_results=False; use another model or kernels=native"
            )
        if self.gathers:
            _, self.columns = share_of(self.output_size, self.tp_size, 0)
            self._hold_output_columns()
        else:
            order.check_leaves_divide(self.prefix, self.input_size, settings.leaves)
            self.local_leaves = order.local_leaves(settings.leaves, self.tp_size)

    def _hold_output_columns(self) -> None:
        """Replace the weight [N, K / tp] by one of [ceil(N / tp), K]; rows that the last rank does not need are 0."""
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
        """First output column of this rank in the gather form, and the one after its last."""
        return share_of(self.output_size, self.tp_size, self.tp_rank)

    def forward(self, input_: torch.Tensor) -> Any:
        """[..., K / tp] -> [..., N] on all ranks; with `return_bias` a tuple of that and None."""
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
