"""A trainer rank: all that runs in one process of the FSDP group."""

from __future__ import annotations

import platform
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from rlsync.checkpoint.export import export_adapters, export_model
from rlsync.checkpoint.state import load_state, save_state
from rlsync.config.cluster import Device
from rlsync.errors import ConfigError
from rlsync.kernels.fingerprint import fingerprint
from rlsync.pack import MinibatchSize, Pack
from rlsync.samples import Rollout
from rlsync.trace.records import OpKey, OpRecord
from rlsync.trainer.critic_step import CriticRunner
from rlsync.trainer.settings import TrainerSettings
from rlsync.trainer.sharded import Sharded
from rlsync.trainer.sharded_critic import ShardedCritic
from rlsync.trainer.stats import StepStats
from rlsync.trainer.step import StepRunner
from rlsync.trainer.trace import trace_forward
from rlsync.weight_sync.digest import TensorDigest
from rlsync.weight_sync.plan import ParamSpec, SyncPlan
from rlsync.weight_sync.sender import WeightSender
from rlsync.weight_sync.store import Address


def settings_fingerprint(settings: TrainerSettings) -> str:
    """The fingerprint that kernels with these settings have in this process."""
    return fingerprint(
        leaves=settings.leaves,
        row_parallel=settings.kernels.row_parallel.value,
        temperature=settings.temperature,
        dtype=settings.model.dtype.value,
        device=settings.device.value,
    )


class TrainerWorker:
    """One trainer rank. Methods marked as collective must be called on all ranks together.

    Args:
        settings: the settings of the trainer ranks.
        rank: the number of this rank.
        store: key-value store through which the ranks find each other.
    """

    def __init__(self, settings: TrainerSettings, rank: int, store: dist.Store) -> None:
        torch.set_num_threads(settings.trainer.threads_per_rank)
        torch.manual_seed(settings.seed)
        device, models = settings.device, settings.models
        if device is Device.cuda:
            _make_deterministic()
        self._settings, self._rank = settings, rank
        ranks = settings.trainer.ranks
        dist.init_process_group(
            "gloo" if device is Device.cpu else "cpu:gloo,cuda:nccl",
            store=store,
            rank=rank,
            world_size=ranks,
        )  # collective
        mesh = init_device_mesh(device.value, (ranks,))
        self._policy = Sharded(settings, models.policy, mesh, trainable=True)
        reference = Sharded(settings, models.reference, mesh, trainable=False) if models.reference else None
        self._runner = StepRunner(settings, self._policy, reference)
        self._critic: ShardedCritic | None = None
        if models.critic:
            self._critic = ShardedCritic(settings, models.critic, mesh)
            self._critic_runner = CriticRunner(settings, self._critic)
        self._sender = WeightSender(self._policy)

    def fingerprint(self) -> str:
        """The fingerprint of this rank's kernels, which all processes of a run must share."""
        return settings_fingerprint(self._settings)

    def device_name(self) -> str:
        """The name of the GPU or the processor that this rank computes on."""
        return device_name(self._settings.device)

    def specs(self) -> list[ParamSpec]:
        """Names, shapes and dtype of the tensors that a weight sync sends, in order."""
        return self._policy.specs()

    def open_channel(self, host: str, receivers: int) -> Address:
        """Open this rank's weight channel.

        Args:
            host: name or address under which the receivers reach this host.
            receivers: number of rollout workers that this rank feeds.

        Returns:
            The address to which the receivers connect.
        """
        return self._sender.open_channel(host, receivers)

    def connect(self, plan: SyncPlan) -> None:
        """Wait until all receivers have joined this rank's channel, if it has one (collective)."""
        self._sender.connect(plan)

    def free_memory(self) -> None:
        """Give the GPU memory that PyTorch keeps in reserve back, so that engines on the same GPU can use it."""
        torch.cuda.empty_cache()

    def send_weights(self) -> list[TensorDigest]:
        """Send the weights to the rollout workers (collective) and return the digests of this rank's rows."""
        return self._sender.send()

    def reference_kl(self, packs: list[Pack]) -> dict[int, torch.Tensor]:
        """[T] float64 by sequence id: KL to the reference at each token (collective)."""
        return self._runner.reference_kl(packs)

    def values(self, packs: list[Pack]) -> dict[int, torch.Tensor]:
        """[T] float32 by sequence id: the critic's values of the text before each token (collective)."""
        return self._critic_runner.values(packs)

    def train(self, minibatches: list[list[Pack]], sizes: list[MinibatchSize], version: int) -> StepStats:
        """Run one training step of the policy and the critic (collective).

        Args:
            minibatches: packs of this rank, [minibatch][micro-batch].
            sizes: size of each minibatch over all ranks.
            version: version of the weights before the step.
        """
        critic = self._critic_runner.run(minibatches, sizes) if self._critic else None
        stats = self._runner.run(minibatches, sizes, version)
        stats.critic = critic
        return stats

    def trace(self, rollout: Rollout, tp: int, rows: dict[OpKey, int] | None) -> list[OpRecord]:
        """Forward a rollout and return the records of all ops (collective), as trainer.trace.trace_forward."""
        return trace_forward(self._policy, rollout, tp, rows)

    def save(self, folder: str, version: int, resumable: bool) -> None:
        """Write a checkpoint in Hugging Face format; a critic goes to the subfolder `critic/` (collective).

        Args:
            folder: folder of the checkpoint.
            version: version of the weights.
            resumable: also write the state that `load` reads.
        """
        state, adapters = self._policy.full_image(), self._policy.adapter_image()
        critic = self._critic.full_image() if self._critic else {}
        if self._rank == 0:
            source, model = self._settings.models.policy, self._settings.model
            write = partial(export_model, source=source, revision=model.revision_of(source))
            write(state, self._policy.hf_config, self._policy.dtype, folder=Path(folder))
            if adapters:
                export_adapters(adapters, model.lora, source, Path(folder, "adapter"))
            if self._critic:
                write(critic, self._critic.hf_config, self._critic.dtype, folder=Path(folder, "critic"))
        dist.barrier()
        if resumable:
            critic_updates = self._critic_runner.updates if self._critic else 0
            counters = torch.tensor([version, self._runner.updates, critic_updates])
            save_state(Path(folder), self._parts(), counters)

    def load(self, folder: str, version: int) -> None:
        """Restore the state that `save` has written (collective).

        Args:
            folder: folder of the checkpoint.
            version: version of the weights that the checkpoint must have.

        Raises:
            ConfigError: the state has another version, or it cannot be read.
        """
        counters = torch.zeros(3, dtype=torch.int64)
        load_state(Path(folder), self._parts(), counters)
        self._policy.merge_adapters()
        saved, self._runner.updates, critic_updates = counters.tolist()
        if saved != version:
            raise ConfigError(
                f"run.resume=true: the state in {folder} belongs to step {saved}, but progress.json there says step "
                f"{version}. Remove the folder to resume from the previous checkpoint."
            )
        if self._critic:
            self._critic_runner.updates = critic_updates

    def _parts(self) -> dict[str, tuple[torch.nn.Module, torch.optim.Optimizer]]:
        assert self._policy.optimizer is not None
        parts = {"policy": (self._policy.policy, self._policy.optimizer)}
        return parts | ({"critic": (self._critic.critic, self._critic.optimizer)} if self._critic else {})


def device_name(device: Device) -> str:
    """The name of this process's first GPU, or of the machine's processor."""
    if device is Device.cuda:
        return torch.cuda.get_device_name(0)
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _make_deterministic() -> None:
    """Make PyTorch use kernels that give equal gradients in equal runs; cluster/env.py sets cuBLAS's workspace."""
    torch.cuda.set_device(0)  # an actor sees its own GPU only
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
