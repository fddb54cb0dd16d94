"""The worker's side of a weight sync: methods that vLLM adds to each of its workers (worker_extension_cls)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import torch
from vllm.distributed import get_tp_group

from rlsync.config.parity import Fault
from rlsync.kernels.fingerprint import fingerprint
from rlsync.trace.records import OpRecord, Recorder
from rlsync.vllm_plugin.settings import settings_of
from rlsync.weight_sync.digest import Digester, Part, TensorDigest, whole_rows
from rlsync.weight_sync.direct import Offer, check_layout, make_offer, offer
from rlsync.weight_sync.plan import SyncPlan, torch_dtype
from rlsync.weight_sync.transport import Channel, Seat


class WeightReceiver:
    """A mix-in over vLLM's worker; `RolloutEngine` calls its methods through `collective_rpc`."""

    model_runner: Any
    vllm_config: Any
    device: torch.device
    rlsync_channel: Channel
    """The channel to the trainer rank that feeds this worker."""
    rlsync_plan: SyncPlan
    """The plan of the weight sync."""
    rlsync_recording: Any
    """The hooks of a trace."""
    rlsync_graphs: bool
    """Whether the worker had CUDA graphs before a trace put them aside."""
    rlsync_direct: bool
    """Whether trainer ranks write into this worker's parameters."""

    def rlsync_pid(self) -> int:
        """The worker's process id."""
        return os.getpid()

    def rlsync_report_row_digests(self) -> None:
        """Let vLLM's V1 model runner report the digest of each row of logits."""
        from rlsync.vllm_plugin.sampling import report_row_digests

        self.model_runner.sampler = report_row_digests(self.model_runner.get_model())

    def rlsync_record(self, expected: list[OpRecord] | None) -> None:
        """Record the ops of the requests that follow, without CUDA graphs, until `rlsync_recorded`."""
        from rlsync.vllm_plugin.recording import WorkerRecording

        self.rlsync_recording = WorkerRecording(self.model_runner.get_model(), Recorder(expected))
        if self.device.type == "cuda":
            self.rlsync_graphs = self.model_runner.cudagraph_manager._graphs_captured
            self.model_runner.cudagraph_manager._graphs_captured = False  # hooks do not run in a CUDA graph

    def rlsync_recorded(self) -> list[OpRecord]:
        """End the recording, and return its records."""
        if self.device.type == "cuda":
            self.model_runner.cudagraph_manager._graphs_captured = self.rlsync_graphs
        return self.rlsync_recording.finish()

    def rlsync_fingerprint(self) -> str:
        """The fingerprint of this worker's kernels.

        Raises:
            ConfigError: the plugin is not active in this worker.
        """
        from rlsync.vllm_plugin.install import check_installed

        check_installed(self.model_runner.get_model())
        settings = settings_of(self.vllm_config)
        model_config = self.vllm_config.model_config
        return fingerprint(
            leaves=settings.leaves,
            row_parallel=settings.row_parallel,
            temperature=settings.temperature,
            dtype=str(model_config.dtype).removeprefix("torch."),
            device=self.vllm_config.device_config.device_type,
        )

    def rlsync_connect(self, plan: SyncPlan, seats: list[Seat], fixed: bool) -> None:
        """Join the channel of the trainer rank that feeds this worker.

        Args:
            plan: the plan of the weight sync.
            seats: the seats of the engine's workers, in the order of their tensor-parallel ranks.
            fixed: the parameters are on a GPU and keep their place and layout, so trainer ranks may write into them.
                Their values are lost until the first sync.

        Raises:
            DivergenceError: vLLM lays out the model differently than layout.py says.
        """
        self.rlsync_plan = plan
        seat = seats[get_tp_group().rank_in_group]
        self.rlsync_channel = Channel(rank=seat.rank, world=seat.world, device=self.device, address=seat.address)
        self.rlsync_channel.connect()
        self.rlsync_direct = make_offer(self.rlsync_channel, self._offer if fixed else lambda: None)
        if not self.rlsync_direct:
            self.rlsync_channel.prepare(plan.largest_bytes)

    def _offer(self) -> Offer | None:
        specs = [spec for bucket in self.rlsync_plan.buckets for spec in bucket]
        parts = self._parts()
        check_layout(specs, parts, self.model_runner.get_model().load_weights)
        torch.cuda.empty_cache()  # frees the memory of the random tensors
        return offer(parts)

    def rlsync_receive(self, native: bool, fault: Fault) -> list[TensorDigest]:
        """Receive and load all weights.

        Args:
            native: the engine is stock vLLM.
            fault: a fault to plant in the last worker.

        Returns:
            The digests of the weights that the kernels read now. With `native` vLLM repacks its weights, so these are
            the digests of what has arrived.
        """
        model = self.model_runner.get_model()
        stale = self._stale_part(model) if fault is Fault.stale_shard else None
        if native:
            received = Digester()
            self.model_runner.reload_weights(weights_iterator=self._tensors(received))
            return received.digests()
        if self.rlsync_direct:
            torch.cuda.synchronize()
            self.rlsync_channel.barrier()  # the trainer ranks begin to write
            parts = self._parts()  # the current parameters, which the digest must cover, and not the offered ones
            self.rlsync_channel.barrier()
        else:
            model.load_weights(self._tensors())
            parts = self._parts()
        if stale is not None:
            view, old = stale
            view.copy_(old)
        digester = Digester()
        digester.add(parts)
        digests = digester.digests()
        if fault is Fault.ulp:
            self._plant_ulp(model)
        return digests

    def _tensors(self, received: Digester | None = None) -> Iterator[tuple[str, torch.Tensor]]:
        """Receive all tensors, one bucket after another; `received` collects their digests."""
        plan = self.rlsync_plan
        for bucket in plan.buckets:
            dtype = torch_dtype(bucket[0].dtype)
            size = plan.message_elements(bucket)
            messages = self.rlsync_channel.receive(plan.ranks * size, dtype)
            tensors = plan.assemble(bucket, list(messages.split(size)))
            if received is not None:
                received.add([whole_rows(*named) for named in tensors])
            yield from tensors

    def _parts(self) -> list[Part]:
        from rlsync.vllm_plugin.layout import local_parts

        return list(local_parts(self.model_runner.get_model()))

    def _is_last_worker(self) -> bool:
        group = get_tp_group()
        return group.rank_in_group == group.world_size - 1

    def _stale_part(self, model: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor] | None:
        """For a planted fault: the last down-projection of the last worker, and a copy of its value before the sync."""
        if not self._is_last_worker():
            return None
        view = [p.data for name, p in model.named_parameters() if name.endswith("down_proj.weight")][-1]
        return view, view.clone()

    def _plant_ulp(self, model: torch.nn.Module) -> None:
        """Plant a fault that the digest does not see: change a weight of the last worker's first norm by one ulp."""
        if self._is_last_worker():
            weight = next(p.data for name, p in model.named_parameters() if name.endswith("input_layernorm.weight"))
            bits = weight.view(torch.int16 if weight.dtype == torch.bfloat16 else torch.int32)
            bits[weight.abs().argmax()] += 1
