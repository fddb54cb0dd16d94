"""Records the ops of a vLLM worker for a trace, by hooks on the modules of its model."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from vllm.distributed import get_tensor_model_parallel_rank, get_tensor_model_parallel_world_size

from rlsync.kernels import ops
from rlsync.trace.records import OUTSIDE_LAYERS, Op, OpRecord, Recorder
from rlsync.vllm_plugin.linear import InvariantRowParallelLinear

_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")
_NORMS = {
    "model.norm": (Op.last_residual, Op.norm),
    "input_layernorm": (Op.residual, Op.input_layernorm),
    "post_attention_layernorm": (Op.residual_mid, Op.post_attention_layernorm),
}
_ROW_PARALLEL = {
    "self_attn.o_proj": (Op.attention, Op.o_proj_root, Op.o_proj),
    "mlp.down_proj": (Op.act, Op.down_proj_root, Op.down_proj),
}


class WorkerRecording:
    """The hooks on one worker's model. While they are there, one request at a time may run.

    Args:
        model: The worker's causal LM.
        recorder: Collects the records.
    """

    def __init__(self, model: nn.Module, recorder: Recorder) -> None:
        self._recorder = recorder
        self._rank, self._tp = get_tensor_model_parallel_rank(), get_tensor_model_parallel_world_size()
        self._handles = [model.register_forward_pre_hook(self._begin, with_kwargs=True)]
        self._modules = dict(model.named_modules())
        for name, module in self._modules.items():
            self._attach(name, module)

    def finish(self) -> list[OpRecord]:
        """Remove the hooks, and return the records."""
        for handle in self._handles:
            handle.remove()
        return self._recorder.records()

    def _begin(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        positions = kwargs["positions"] if "positions" in kwargs else args[1]
        self._recorder.positions = positions.cpu().clone()

    def _attach(self, name: str, module: nn.Module) -> None:
        if name == "model.embed_tokens":
            self._after(module, lambda out: self._recorder.add(OUTSIDE_LAYERS[Op.embed_tokens], Op.embed_tokens, out))
        elif name == "model.norm":
            self._norm(module, OUTSIDE_LAYERS[Op.norm], *_NORMS[name])
        elif found := _LAYER.fullmatch(name):
            layer, leaf = int(found[1]), found[2]
            if leaf in _NORMS:
                self._norm(module, layer, *_NORMS[leaf])
            elif leaf in _ROW_PARALLEL:
                self._row_parallel(module, layer, *_ROW_PARALLEL[leaf])
            elif leaf == "self_attn.qkv_proj":
                self._after(module, lambda out: self._qkv(layer, out[0]))
            elif leaf in ("self_attn.q_norm", "self_attn.k_norm"):
                op, heads = (Op.q_norm, 0) if leaf.endswith("q_norm") else (Op.k_norm, self._kv_heads(layer))
                self._after(module, lambda out: self._columns(layer, op, out, heads))
            elif leaf == "self_attn.attn":
                self._rotated(module, layer)
            elif leaf == "mlp.gate_up_proj":
                self._after(module, lambda out: self._gate_up(layer, out[0]))

    def _after(self, module: nn.Module, record: Any) -> None:
        self._keep(module.register_forward_hook(lambda _m, _i, out: record(out)))

    def _keep(self, handle: RemovableHandle) -> None:
        self._handles.append(handle)

    def _norm(self, module: nn.Module, layer: int, residual: Op, normed: Op) -> None:
        """A norm with a residual returns the normed sum and the sum; the first norm has its input as the residual."""

        def record(_module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
            values, stream = out if isinstance(out, tuple) else (out, args[0])
            self._recorder.add(layer, residual, stream)
            self._recorder.add(layer, normed, values)

        self._keep(module.register_forward_hook(record))

    def _row_parallel(self, module: nn.Module, layer: int, before: Op, root: Op, after: Op) -> None:
        def record(_module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
            self._columns(layer, before, args[0], 0)
            if self._tp > 1 and isinstance(module, InvariantRowParallelLinear) and not module.gathers:
                part = ops.row_parallel_root(args[0], module.weight, module.local_leaves)
                self._columns(layer, root, part, 0)
            self._recorder.add(layer, after, out[0] if isinstance(out, tuple) else out)

        self._keep(module.register_forward_hook(record))

    def _rotated(self, attention: nn.Module, layer: int) -> None:
        """Record what attention is given; the layers share one module for the rotation, which cannot tell the layer."""

        def record(_module: nn.Module, args: tuple[Any, ...]) -> None:
            self._columns(layer, Op.rope_q, args[0], 0)
            self._columns(layer, Op.rope_k, args[1], self._kv_heads(layer))

        self._keep(attention.register_forward_pre_hook(record))

    def _qkv(self, layer: int, out: torch.Tensor) -> None:
        attention = self._modules[f"model.layers.{layer}.self_attn"]
        sizes = [int(attention.q_size), int(attention.kv_size), int(attention.kv_size)]
        q, k, v = out.split(sizes, dim=-1)
        heads = self._kv_heads(layer)
        self._columns(layer, Op.q_proj, q, 0)
        self._columns(layer, Op.k_proj, k, heads)
        self._columns(layer, Op.v_proj, v, heads)

    def _gate_up(self, layer: int, out: torch.Tensor) -> None:
        gate, up = out.chunk(2, dim=-1)
        self._columns(layer, Op.gate_proj, gate, 0)
        self._columns(layer, Op.up_proj, up, 0)

    def _kv_heads(self, layer: int) -> int:
        return int(self._modules[f"model.layers.{layer}.self_attn"].total_num_kv_heads)

    def _columns(self, layer: int, op: Op, values: torch.Tensor, kv_heads: int) -> None:
        """Record this rank's columns; with fewer key-value heads than ranks several ranks hold the same columns."""
        shards = min(self._tp, kv_heads) if kv_heads else self._tp
        self._recorder.add(layer, op, values, shard=self._rank * shards // self._tp, shards=shards)
