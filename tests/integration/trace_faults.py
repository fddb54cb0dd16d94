"""Plants twelve faults in the workers of a real vLLM engine, and traces what each does to a rollout.

    python trace_faults.py FOLDER                        # on the CPU, with TP=2
    python trace_faults.py FOLDER cuda 1 "FAULT" ...     # on a GPU; CUDA graphs see only faults in weights

FOLDER/traces.json says for each fault how many tokens and rows the monitor found to differ, and what the trace names.
The same engine serves all faults: each is removed again, and the prefix cache reset, before the next.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from rlsync.cluster.env import apply_to_engine_host
from rlsync.config.cluster import Device
from rlsync.config.model import ComputeDtype
from rlsync.parity.monitor import compare
from rlsync.samples import RolloutRequest, TrainSample
from rlsync.trace.replay import trace_rollout
from rlsync.trace.report import headline
from rlsync.trainer.packing import pack_samples
from rlsync.trainer.sharded import Sharded
from rlsync.trainer.trace import trace_forward
from rlsync.verify.cases import Cell, Family, build_model, engine_settings, kv_blocks, trainer_settings

Plant = Callable[[Any, Any, int], None]
"""Plants a fault; it is given vLLM's worker, the worker's model, and its TP rank."""


@dataclass(frozen=True)
class Fault:
    """A fault, and what the trace must name."""

    name: str
    plant: Plant
    op: str
    ranks: tuple[int, ...]


def _wrap(worker: Any, module: Any, make: Callable[[Any], Any]) -> None:
    module.forward = make(module.forward)
    worker.rlsync_undo.append(lambda: module.__dict__.pop("forward"))


def _flip(worker: Any, tensor: torch.Tensor) -> None:
    """Change the last bit of values of a weight."""
    bits = tensor.data.view(torch.int16 if tensor.dtype == torch.bfloat16 else torch.int32)
    bits ^= 1
    worker.rlsync_undo.append(lambda: bits.bitwise_xor_(1))


def one_ulp_in_an_op(worker: Any, model: Any, rank: int) -> None:
    def make(forward: Any) -> Any:
        def wrong(x: torch.Tensor) -> torch.Tensor:
            out = forward(x).clone()
            out.view(torch.int32)[..., 5] ^= 1
            return out

        return wrong

    if rank == 1:
        _wrap(worker, model.model.layers[1].mlp.act_fn, make)


def a_wrong_epsilon(worker: Any, model: Any, rank: int) -> None:
    norm = model.model.layers[1].post_attention_layernorm
    right = norm.variance_epsilon
    norm.variance_epsilon = 10 * right
    worker.rlsync_undo.append(lambda: setattr(norm, "variance_epsilon", right))


def a_stale_weight_in_one_shard(worker: Any, model: Any, rank: int) -> None:
    layer = model.model.layers[0].mlp.gate_up_proj
    weight = layer.weight
    if rank == layer.tp_size - 1:
        _flip(worker, weight.data[len(weight) // 2 + 3])


def a_rope_table_of_another_dtype(worker: Any, model: Any, rank: int) -> None:
    rotary = model.model.layers[0].self_attn.rotary_emb
    right = rotary.cos_sin_cache
    rotary.cos_sin_cache = right.to(torch.float8_e5m2).to(right.dtype)
    worker.rlsync_undo.append(lambda: setattr(rotary, "cos_sin_cache", right))


def _wrap_root(worker: Any, weight: torch.Tensor, make: Callable[[Any], Any]) -> None:
    from rlsync.kernels import ops

    right = ops.row_parallel_root
    wrong = make(right)

    def root(x: torch.Tensor, w: torch.Tensor, leaves: int) -> torch.Tensor:
        return (wrong if w.data_ptr() == weight.data_ptr() else right)(x, w, leaves)

    ops.row_parallel_root = root
    worker.rlsync_undo.append(lambda: setattr(ops, "row_parallel_root", right))


def two_leaves_swapped(worker: Any, model: Any, rank: int) -> None:
    def make(right: Any) -> Any:
        def swapped(x: torch.Tensor, w: torch.Tensor, leaves: int) -> torch.Tensor:
            order = torch.arange(x.shape[-1]).view(leaves, -1)[[0, 2, 1, 3]].reshape(-1)
            return right(x[..., order].contiguous(), w[:, order].contiguous(), leaves)

        return swapped

    if rank == 1:
        _wrap_root(worker, model.model.layers[1].mlp.down_proj.weight, make)


def another_tile_table_in_rank_1(worker: Any, model: Any, rank: int) -> None:
    if rank == 1:
        weight = model.model.layers[0].self_attn.o_proj.weight
        _wrap_root(worker, weight, lambda right: lambda x, w, leaves: right(x, w, 2 * leaves))


def a_missed_cache_reset(worker: Any, model: Any, rank: int) -> None:
    """The keys and values of the old weights stay in the cache; `main` removes the fault before it asks again."""
    attention = model.model.layers[0].self_attn
    _flip(worker, attention.qkv_proj.weight.data[attention.q_size :])


def an_op_that_is_not_deterministic(worker: Any, model: Any, rank: int) -> None:
    def make(forward: Any) -> Any:
        calls = iter(range(1 << 30))

        def wrong(x: torch.Tensor) -> Any:
            out, bias = forward(x)
            out = out.clone()
            out.view(torch.int32)[..., 0] += next(calls) % 7 + 1
            return out, bias

        return wrong

    if rank == 0:
        _wrap(worker, model.model.layers[0].mlp.down_proj, make)


def an_unpadded_tail(worker: Any, model: Any, rank: int) -> None:
    norm = model.model.layers[1].input_layernorm

    def make(_forward: Any) -> Any:
        def wrong(x: torch.Tensor, residual: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            total = x + residual
            wide = total.float()
            variance = wide[..., :-3].pow(2).sum(-1, keepdim=True) / wide.shape[-1]
            normed = (wide * torch.rsqrt(variance + norm.variance_epsilon)).to(x.dtype)
            return norm.weight * normed, total

        return wrong

    _wrap(worker, norm, make)


def a_bias_added_twice(worker: Any, model: Any, rank: int) -> None:
    layer = model.model.layers[1].self_attn.qkv_proj

    def make(forward: Any) -> Any:
        def wrong(x: torch.Tensor) -> Any:
            out, bias = forward(x)
            return out + layer.bias, bias

        return wrong

    _wrap(worker, layer, make)


def a_fused_norm_that_rounds_late(worker: Any, model: Any, rank: int) -> None:
    norm = model.model.layers[0].post_attention_layernorm

    def make(_forward: Any) -> Any:
        def wrong(x: torch.Tensor, residual: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            total = x.double() + residual.double()
            variance = total.pow(2).mean(-1, keepdim=True)
            normed = (total * torch.rsqrt(variance + norm.variance_epsilon)).to(x.dtype)
            return norm.weight * normed, total.to(x.dtype)

        return wrong

    _wrap(worker, norm, make)


def the_checkpoint_of_the_step_before(worker: Any, model: Any, rank: int) -> None:
    for param in model.parameters():
        _flip(worker, param)


FAULTS = [
    Fault("one ulp in one op of one layer", one_ulp_in_an_op, "layers.1.act", (1,)),
    Fault("a wrong epsilon", a_wrong_epsilon, "layers.1.post_attention_layernorm", (0, 1)),
    Fault("a stale weight in one shard", a_stale_weight_in_one_shard, "layers.0.up_proj", (1,)),
    Fault("a RoPE table of another dtype", a_rope_table_of_another_dtype, "layers.0.rope_q", (0, 1)),
    Fault("two leaves swapped", two_leaves_swapped, "layers.1.down_proj_root", (1,)),
    Fault("a missed cache reset", a_missed_cache_reset, "layers.0.attention", (0, 1)),
    Fault("an op that is not deterministic", an_op_that_is_not_deterministic, "layers.0.down_proj", (0,)),
    Fault("an unpadded tail", an_unpadded_tail, "layers.1.input_layernorm", (0, 1)),
    Fault("another tile table in TP rank 1", another_tile_table_in_rank_1, "layers.0.o_proj_root", (1,)),
    Fault("a bias added twice", a_bias_added_twice, "layers.1.q_proj", (0, 1)),
    Fault("a fused norm that rounds late", a_fused_norm_that_rounds_late, "layers.0.post_attention_layernorm", (0, 1)),
    Fault("the checkpoint of the step before", the_checkpoint_of_the_step_before, "embed_tokens", (0, 1)),
]


def _planter(plant: Plant) -> Callable[[Any], None]:
    def in_worker(worker: Any) -> None:
        from vllm.distributed import get_tensor_model_parallel_rank

        worker.rlsync_undo = []
        plant(worker, worker.model_runner.get_model(), get_tensor_model_parallel_rank())

    return in_worker


def _undo(worker: Any) -> None:
    for undo in reversed(worker.rlsync_undo):
        undo()


def _none(worker: Any, model: Any, rank: int) -> None:
    """The control: no fault."""


def _requests() -> list[RolloutRequest]:
    lengths = (40, 150, 7)  # the second is prefilled in chunks
    return [
        RolloutRequest(
            prompt=[(i * i + 31 * seed + i // 5) % 259 for i in range(n)], seed=seed, max_tokens=24, stop_ids=[]
        )
        for seed, n in enumerate(lengths)
    ]


class _Sides:
    """An engine and a trainer rank of the same model."""

    def __init__(self, folder: Path, device: Device, tp: int) -> None:
        self.tp = tp
        cell = Cell(Family.qwen2, ComputeDtype.float32, tp)
        settings = engine_settings(cell, build_model(cell, folder), device)
        apply_to_engine_host(settings)
        from rlsync.rollout.engine import RolloutEngine

        self.engine = RolloutEngine(settings, kv_blocks=kv_blocks(cell.family))
        if not dist.is_initialized():  # on a GPU the engine's only worker is in this process and has made one
            dist.init_process_group("gloo", store=dist.FileStore(f"{folder}/store", 1), rank=0, world_size=1)
        mesh = init_device_mesh(device.value, (1,))
        self.policy = Sharded(trainer_settings(settings), settings.model_path, mesh, trainable=False)

    def on_workers(self, function: Callable[[Any], None]) -> None:
        self.engine._engine.collective_rpc(function)

    def result(self, fault: Fault) -> dict[str, Any]:
        self.on_workers(_planter(fault.plant))
        rollouts = self.engine.generate(_requests())
        if fault.plant is a_missed_cache_reset:
            self.on_workers(_undo)
            rollouts = self.engine.generate(_requests())
        pack = pack_samples([TrainSample(rollout=r) for r in rollouts], list(range(len(rollouts))))
        pack = pack.to(self.policy.device)
        with torch.no_grad():
            counts = compare(pack, self.policy.policy(pack, redraw=True), version=0)
        found = {"fault": fault.name, "tokens": counts.tokens_different, "rows": counts.rows_different}
        first = counts.first
        if first is not None:
            report = trace_rollout(
                rollouts[first.sequence],
                first.position,
                sequence=first.sequence,
                tp=self.tp,
                native=False,
                engine=self.engine.trace,
                trainer=lambda rollout, rows: trace_forward(self.policy, rollout, self.tp, rows),
            )
            place = report.place
            assert place is not None
            found |= {
                "op": place.name,
                "ranks": place.ranks,
                "position": place.position,
                "ulp": report.value.ulp if report.value else None,
                "repeats": report.engine_repeats,
                "seconds": report.seconds,
                "text": headline(report),
                "last_ulp": report.growth[-3].max_ulp,
            }
        if fault.plant is not a_missed_cache_reset:
            self.on_workers(_undo)
        self.engine._engine.reset_prefix_cache()
        return found


def main(folder: Path, device: Device = Device.cpu, tp: int = 2, names: list[str] | None = None) -> None:
    """Write what the monitor and the trace say without a fault, and of each fault (by default of all)."""
    sides = _Sides(folder, device, tp)
    try:
        chosen = [fault for fault in FAULTS if not names or fault.name in names]
        found = [sides.result(fault) for fault in [Fault("none", _none, "", ()), *chosen]]
        (folder / "traces.json").write_text(json.dumps(found, indent=1))
    finally:
        sides.engine.shutdown()


if __name__ == "__main__":
    place, *rest = sys.argv[1:]
    main(Path(place), *((Device(rest[0]), int(rest[1]), rest[2:]) if rest else ()))
