"""Records the ops of a Hugging Face policy for a trace, by hooks on its modules."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import AttentionInterface, PreTrainedModel

from rlsync.kernels import ops
from rlsync.models.install import InvariantRowParallelLinear
from rlsync.trace.records import OUTSIDE_LAYERS, Op, Recorder

_LAYER = re.compile(r"layers\.(\d+)\.(.+)")
_WHOLE_OUTPUTS = {
    "input_layernorm": Op.input_layernorm,
    "self_attn.o_proj": Op.o_proj,
    "post_attention_layernorm": Op.post_attention_layernorm,
    "mlp.down_proj": Op.down_proj,
}
_SPLIT_OUTPUTS = {
    "self_attn.q_proj": Op.q_proj,
    "self_attn.q_norm": Op.q_norm,
    "mlp.gate_proj": Op.gate_proj,
    "mlp.up_proj": Op.up_proj,
}
_KEY_OUTPUTS = {"self_attn.k_proj": Op.k_proj, "self_attn.v_proj": Op.v_proj, "self_attn.k_norm": Op.k_norm}
_INPUTS = {"input_layernorm": Op.residual, "post_attention_layernorm": Op.residual_mid}
_SPLIT_INPUTS = {"self_attn.o_proj": Op.attention, "mlp.down_proj": Op.act}
_ROOTS = {"self_attn.o_proj": Op.o_proj_root, "mlp.down_proj": Op.down_proj_root}


@contextmanager
def recording(model: PreTrainedModel, recorder: Recorder, tp: int) -> Iterator[None]:
    """Record the ops of the forward passes that run inside, of packs with one sequence.

    Args:
        model: A causal LM with rlsync's ops or its own.
        recorder: Collects the records.
        tp: Tensor-parallel size of the engine with which they are compared. Ops that TP ranks split are recorded in
            the parts that the ranks hold.
    """
    hooks = _Hooks(model, recorder, tp)
    with ExitStack() as stack:
        base = model.base_model
        stack.callback(base.register_forward_pre_hook(hooks.begin, with_kwargs=True).remove)
        for name, module in base.named_modules():
            for handle in hooks.attach(name, module):
                stack.callback(handle.remove)
        stack.enter_context(_recorded_attention(model, hooks.rotated))
        yield


class _Hooks:
    def __init__(self, model: PreTrainedModel, recorder: Recorder, tp: int) -> None:
        self._recorder, self._tp = recorder, tp
        self._kv_shards = min(tp, model.config.num_key_value_heads)

    def begin(self, _module: nn.Module, _args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._recorder.positions = kwargs["position_ids"][0].cpu()

    def rotated(self, module: nn.Module, query: torch.Tensor, key: torch.Tensor) -> None:
        """Record queries and keys [1, H, T, D] after the rotation."""
        layer = int(module.layer_idx)  # type: ignore[arg-type]
        for op, values, shards in ((Op.rope_q, query, self._tp), (Op.rope_k, key, self._kv_shards)):
            self._recorder.add_split(layer, op, values[0].transpose(0, 1), shards)

    def attach(self, name: str, module: nn.Module) -> list[RemovableHandle]:
        """Add the hooks of a module of the backbone, by its name."""
        if name == "embed_tokens":
            return [self._output(module, OUTSIDE_LAYERS[Op.embed_tokens], Op.embed_tokens, 1)]
        if name == "norm":
            at = OUTSIDE_LAYERS[Op.norm]
            return [self._input(module, at, Op.last_residual, 1), self._output(module, at, Op.norm, 1)]
        found = _LAYER.fullmatch(name)
        if found is None:
            return []
        layer, leaf = int(found[1]), found[2]
        handles = []
        if leaf in _INPUTS:
            handles.append(self._input(module, layer, _INPUTS[leaf], 1))
        if leaf in _SPLIT_INPUTS:
            handles.append(self._input(module, layer, _SPLIT_INPUTS[leaf], self._tp))
        if leaf in _ROOTS and isinstance(module, InvariantRowParallelLinear) and self._tp > 1:
            handles.append(self._roots(module, layer, _ROOTS[leaf]))
        if leaf in _WHOLE_OUTPUTS:
            handles.append(self._output(module, layer, _WHOLE_OUTPUTS[leaf], 1))
        if leaf in _SPLIT_OUTPUTS:
            handles.append(self._output(module, layer, _SPLIT_OUTPUTS[leaf], self._tp))
        if leaf in _KEY_OUTPUTS:
            handles.append(self._output(module, layer, _KEY_OUTPUTS[leaf], self._kv_shards))
        return handles

    def _output(self, module: nn.Module, layer: int, op: Op, shards: int) -> RemovableHandle:
        return module.register_forward_hook(lambda _m, _i, out: self._recorder.add_split(layer, op, out[0], shards))

    def _input(self, module: nn.Module, layer: int, op: Op, shards: int) -> RemovableHandle:
        return module.register_forward_pre_hook(lambda _, args: self._recorder.add_split(layer, op, args[0][0], shards))

    def _roots(self, module: InvariantRowParallelLinear, layer: int, op: Op) -> RemovableHandle:
        """Record what each TP rank computes before the ranks' parts are added."""

        def record(_module: nn.Module, args: tuple[torch.Tensor], _out: torch.Tensor) -> None:
            if module.leaves % self._tp:  # the gather form, in which ranks hold columns
                return
            parts = zip(args[0][0].chunk(self._tp, 1), module.weight.detach().chunk(self._tp, 1), strict=True)
            for shard, (x, w) in enumerate(parts):
                root = ops.row_parallel_root(x.contiguous(), w.contiguous(), module.leaves // self._tp)
                self._recorder.add(layer, op, root, shard=shard, shards=self._tp)

        return module.register_forward_hook(record)


@contextmanager
def _recorded_attention(
    model: PreTrainedModel, record: Callable[[nn.Module, torch.Tensor, torch.Tensor], None]
) -> Iterator[None]:
    """Let the model's attention function report its queries and keys; it is the place where both are rotated."""
    name = model.config._attn_implementation
    interface = AttentionInterface()
    if name not in interface:  # eager attention of the model's own file, which has no place to report from
        yield
        return
    attention = interface[name]

    def recorded(module: nn.Module, query: torch.Tensor, key: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        record(module, query, key)
        return attention(module, query, key, *args, **kwargs)

    AttentionInterface.register(name, recorded)
    try:
        yield
    finally:
        AttentionInterface.register(name, attention)
