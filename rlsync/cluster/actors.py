"""The Ray actors: thin wrappers around a trainer rank, a rollout engine and a reward model."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

import psutil
import ray

from rlsync.cluster.children import Children, remove
from rlsync.cluster.env import take_gpus
from rlsync.cluster.gpus import Place, visible_gpus
from rlsync.config.parity import Fault
from rlsync.config.reward import RewardFunctionConfig
from rlsync.errors import WorkerDiedError
from rlsync.pack import MinibatchSize, Pack
from rlsync.samples import Rollout, RolloutRequest
from rlsync.trace.records import OpKey, OpRecord
from rlsync.trainer.stats import StepStats
from rlsync.weight_sync.digest import TensorDigest
from rlsync.weight_sync.plan import ParamSpec, SyncPlan
from rlsync.weight_sync.store import Address
from rlsync.weight_sync.transport import Seat

if TYPE_CHECKING:
    import torch
    from torch.distributed import Store

    from rlsync.rewards.reward_model import ModelScores, RewardModel
    from rlsync.rollout.engine import RolloutEngine
    from rlsync.rollout.settings import EngineSettings
    from rlsync.trainer.settings import TrainerSettings
    from rlsync.trainer.worker import TrainerWorker

_STORE_TIMEOUT = timedelta(minutes=30)


def _host(local: bool) -> str:
    """Return the address of this node for the other processes of the run; `local`: all are on this machine."""
    return "127.0.0.1" if local else ray.util.get_node_ip_address()


class _Actor:
    """Base class of the actors. They import large modules only in `start`, so that a dead actor is noticed early."""

    def __init__(self) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the driver decides

    def pids(self) -> list[int]:
        """Return the pids of this process and of all its descendants."""
        return [os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))]

    def place(self) -> Place:
        """Return this process's node and the GPUs that Ray makes visible to it."""
        return Place(node=ray.get_runtime_context().get_node_id(), gpus=visible_gpus())

    def peak_memory_gib(self) -> float:
        """Return the sum of the peak resident memory of this process and of its descendants, in GiB."""
        total = 0
        for pid in self.pids():
            with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
                total += next((int(line.split()[1]) for line in status if line.startswith("VmHWM")), 0)
        return total / 2**20


class TrainerActor(_Actor):
    """One trainer rank; most methods call the TrainerWorker's method of the same name."""

    _worker: TrainerWorker
    _store: Store

    def serve_store(self, local: bool) -> Address:
        """Serve the store through which the ranks find each other. Called on rank 0 only."""
        from rlsync.weight_sync.store import serve_store

        self._store, address = serve_store(_host(local), _STORE_TIMEOUT)
        return address

    def start(self, settings: TrainerSettings, rank: int, store: Address) -> list[ParamSpec]:
        """Join the store, load the models, and return the specifications of the weights."""
        from rlsync.trainer.worker import TrainerWorker
        from rlsync.weight_sync.store import join_store

        if rank:
            self._store = join_store(store, _STORE_TIMEOUT)
        self._worker = TrainerWorker(settings, rank, self._store)
        return self._worker.specs()

    def fingerprint(self) -> str:
        """Return the fingerprint of the rank's kernels."""
        return self._worker.fingerprint()

    def device_name(self) -> str:
        """Return the name of the rank's GPU or processor."""
        return self._worker.device_name()

    def open_channel(self, receivers: int, local: bool) -> Address:
        """Open the weight channel of a rank that feeds workers, and return its address."""
        return self._worker.open_channel(_host(local), receivers)

    def connect(self, plan: SyncPlan) -> None:
        """Connect the weight channel."""
        self._worker.connect(plan)

    def free_memory(self) -> None:
        """Free the GPU memory that PyTorch keeps in reserve."""
        self._worker.free_memory()

    def send_weights(self) -> list[TensorDigest]:
        """Send the weights to the workers, and return their digests."""
        return self._worker.send_weights()

    def reference_kl(self, packs: list[Pack]) -> dict[int, torch.Tensor]:
        """Return the KL to the reference at each token, by the sample's index."""
        return self._worker.reference_kl(packs)

    def values(self, packs: list[Pack]) -> dict[int, torch.Tensor]:
        """Return the critic's value at each token, by the sample's index."""
        return self._worker.values(packs)

    def train(self, minibatches: list[list[Pack]], sizes: list[MinibatchSize], version: int) -> StepStats:
        """Train a step on the rank's packs."""
        return self._worker.train(minibatches, sizes, version)

    def trace(self, rollout: Rollout, tp: int, rows: dict[OpKey, int] | None) -> list[OpRecord]:
        """Return the records of all ops of a rollout's forward pass."""
        return self._worker.trace(rollout, tp, rows)

    def save(self, folder: str, version: int, resumable: bool) -> None:
        """Write a checkpoint; `resumable`: with the trainer's state."""
        self._worker.save(folder, version, resumable)

    def load(self, folder: str, version: int) -> None:
        """Load the trainer's state from a checkpoint."""
        self._worker.load(folder, version)


class RewardModelActor(_Actor):
    """One reward model."""

    _model: RewardModel

    def __init__(self, config: RewardFunctionConfig) -> None:
        super().__init__()
        self._config = config

    def load(self) -> None:
        """Load the model onto the device that the configuration asks for."""
        from rlsync.rewards.reward_model import RewardModel

        self._model = RewardModel(self._config, "cuda" if self._config.model_gpus else "cpu")

    def score(self, prompts: list[str], completions: list[str]) -> ModelScores:
        """Score completions, as RewardModel.score."""
        return self._model.score(prompts, completions)


class RolloutActor(_Actor):
    """One rollout engine; most methods call the RolloutEngine's method of the same name."""

    _engine: RolloutEngine
    _workers: Children

    def start(self, settings: EngineSettings, index: int, gpus: tuple[str, ...]) -> None:
        """Start the engine, and watch its TP workers.

        Args:
            settings: Settings of the engine.
            index: Number of the engine in the run, for messages.
            gpus: GPUs of a colocated engine; an empty tuple keeps those that Ray assigned.
        """
        take_gpus(gpus)
        from rlsync.rollout.engine import RolloutEngine

        self._engine = RolloutEngine(settings)
        pids = enumerate(self._engine.worker_pids())
        names = {pid: f"TP worker {rank} of rollout engine {index}" for rank, pid in pids if pid != os.getpid()}
        self._workers = Children(names)

    def fingerprints(self) -> list[str]:
        """Return the fingerprints of all workers' kernels."""
        return self._engine.fingerprints()

    def connect(self, plan: SyncPlan, seats: list[Seat]) -> None:
        """Connect each worker to its weight channel."""
        self._engine.connect(plan, seats)

    def generate(self, requests: list[RolloutRequest]) -> Iterator[list[tuple[int, Rollout]]]:
        """Yield what each step of the engine finishes: pairs of a request's index and its rollout."""
        try:
            yield from self._engine.stream(requests)
        except Exception as error:
            raise self._explained(error) from error

    def trace(self, request: RolloutRequest, expected: list[OpRecord] | None) -> tuple[Rollout, list[list[OpRecord]]]:
        """Answer a request, and return the rollout and the records of each TP rank."""
        return self._engine.trace(request, expected)

    def sleep(self) -> None:
        """Free the GPU memory of weights and KV cache."""
        self._engine.sleep()

    def wake(self) -> None:
        """Allocate the KV cache again, after new weights have been received."""
        self._engine.wake()

    def receive_weights(self, version: int, fault: Fault) -> list[TensorDigest]:
        """Receive weights of this version, and return their digests."""
        try:
            return self._engine.receive_weights(version, fault)
        except Exception as error:
            raise self._explained(error) from error

    def segments(self) -> list[str]:
        """Return the files of shared memory that the engine's processes hold."""
        return self._workers.segments()

    def shutdown(self) -> None:
        """End the TP workers, and free their shared memory."""
        segments = self.segments()
        self._workers.let_go()
        self._engine.shutdown()
        remove(segments)

    def _explained(self, error: Exception) -> Exception:
        dead = self._workers.first_dead
        return WorkerDiedError(f"{dead} died: it was killed, ran out of memory, or crashed") if dead else error
