"""A trainer rank: everything that runs inside one process of the FSDP group."""

from __future__ import annotations

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
from rlsync.trainer.critic_step import CriticRunner
from rlsync.trainer.settings import TrainerSettings
from rlsync.trainer.sharded import Sharded
from rlsync.trainer.sharded_critic import ShardedCritic
from rlsync.trainer.stats import StepStats
from rlsync.trainer.step import StepRunner
from rlsync.weight_sync.digest import TensorDigest
from rlsync.weight_sync.plan import ParamSpec, SyncPlan
from rlsync.weight_sync.sender import WeightSender
from rlsync.weight_sync.store import Address


class TrainerWorker:
    """One rank. Methods marked collective must be called on all ranks together.

    Args:
        store: through which the ranks find each other.
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
        """The digest of the kernels and settings that rollout workers must share."""
        settings = self._settings
        return fingerprint(
            leaves=settings.leaves,
            row_parallel=settings.kernels.row_parallel.value,
            temperature=settings.temperature,
            dtype=settings.model.dtype.value,
            device=settings.device.value,
        )

    def specs(self) -> list[ParamSpec]:
        return self._policy.specs()

    def open_channel(self, host: str, receivers: int) -> Address:
        """Open this rank's weight channel; the receivers connect to the returned address and reach it as `host`."""
        return self._sender.open_channel(host, receivers)

    def connect(self, plan: SyncPlan) -> None:
        """Wait until every receiver has joined this rank's channel, if it has one."""
        self._sender.connect(plan)

    def free_memory(self) -> None:
        """Leave what PyTorch keeps of the GPU for later use to the engines there."""
        torch.cuda.empty_cache()

    def send_weights(self) -> list[TensorDigest]:
        """Send the weights to the rollout workers (collective); returns digests of this rank's rows."""
        return self._sender.send()

    def reference_kl(self, packs: list[Pack]) -> dict[int, torch.Tensor]:
        """KL to the reference at each token, [T] float64 by sequence id (collective)."""
        return self._runner.reference_kl(packs)

    def values(self, packs: list[Pack]) -> dict[int, torch.Tensor]:
        """The critic's values of what came before each token, [T] float32 by sequence id (collective)."""
        return self._critic_runner.values(packs)

    def train(self, minibatches: list[list[Pack]], sizes: list[MinibatchSize], version: int) -> StepStats:
        """One step of the policy and the critic (collective).

        Args:
            minibatches: packs of this rank, [minibatch][micro-batch].
            sizes: size of each minibatch over all ranks.
            version: version of the weights before the step.
        """
        critic = self._critic_runner.run(minibatches, sizes) if self._critic else None
        stats = self._runner.run(minibatches, sizes, version)
        stats.critic = critic
        return stats

    def save(self, folder: str, version: int, resumable: bool) -> None:
        """Write the models in Hugging Face format and the critic in `critic/` (collective).

        Args:
            version: version of the weights.
            resumable: write also the state that `load` goes on from.
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
        """Go on from the state that `save` has left (collective).

        Raises:
            ConfigError: the state is not of weights of this version, or it cannot be read.
        """
        counters = torch.zeros(3, dtype=torch.int64)
        load_state(Path(folder), self._parts(), counters)
        self._policy.merge_adapters()
        saved, self._runner.updates, critic_updates = counters.tolist()
        if saved != version:
            raise ConfigError(
                f"run.resume=true: the state in {folder} is that of step {saved}, and progress.json there says step "
                f"{version}. Remove the folder to go on from the checkpoint before it."
            )
        if self._critic:
            self._critic_runner.updates = critic_updates

    def _parts(self) -> dict[str, tuple[torch.nn.Module, torch.optim.Optimizer]]:
        assert self._policy.optimizer is not None
        parts = {"policy": (self._policy.policy, self._policy.optimizer)}
        return parts | ({"critic": (self._critic.critic, self._critic.optimizer)} if self._critic else {})


def _make_deterministic() -> None:
    """Equal runs give equal gradients: no atomic adds, and one workspace for cuBLAS (cluster/env.py)."""
    torch.cuda.set_device(0)  # an actor sees its own GPU alone
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
