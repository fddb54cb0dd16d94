"""The Ray actors: thin shells around a trainer rank and a rollout engine."""

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
    """This node for the others of a run, which may be on this machine alone."""
    return "127.0.0.1" if local else ray.util.get_node_ip_address()


class _Actor:
    """What every actor has. Heavy imports wait for `start`, so that a dead actor is noticed early."""

    def __init__(self) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the driver decides

    def pids(self) -> list[int]:
        """This process and its children."""
        return [os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))]

    def place(self) -> Place:
        """This process's node, and the GPUs that Ray shows it."""
        return Place(node=ray.get_runtime_context().get_node_id(), gpus=visible_gpus())

    def peak_memory_gib(self) -> float:
        """Largest resident memory so far of this process and its children, summed."""
        total = 0
        for pid in self.pids():
            with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
                total += next((int(line.split()[1]) for line in status if line.startswith("VmHWM")), 0)
        return total / 2**20


class TrainerActor(_Actor):
    _worker: TrainerWorker
    _store: Store

    def serve_store(self, local: bool) -> Address:
        """Serve the store through which the ranks find each other; called on rank 0 only."""
        from rlsync.weight_sync.store import serve_store

        self._store, address = serve_store(_host(local), _STORE_TIMEOUT)
        return address

    def start(self, settings: TrainerSettings, rank: int, store: Address) -> list[ParamSpec]:
        from rlsync.trainer.worker import TrainerWorker
        from rlsync.weight_sync.store import join_store

        if rank:
            self._store = join_store(store, _STORE_TIMEOUT)
        self._worker = TrainerWorker(settings, rank, self._store)
        return self._worker.specs()

    def fingerprint(self) -> str:
        return self._worker.fingerprint()

    def open_channel(self, receivers: int, local: bool) -> Address:
        return self._worker.open_channel(_host(local), receivers)

    def connect(self, plan: SyncPlan) -> None:
        self._worker.connect(plan)

    def free_memory(self) -> None:
        self._worker.free_memory()

    def send_weights(self) -> list[TensorDigest]:
        return self._worker.send_weights()

    def reference_kl(self, packs: list[Pack]) -> dict[int, torch.Tensor]:
        return self._worker.reference_kl(packs)

    def values(self, packs: list[Pack]) -> dict[int, torch.Tensor]:
        return self._worker.values(packs)

    def train(self, minibatches: list[list[Pack]], sizes: list[MinibatchSize], version: int) -> StepStats:
        return self._worker.train(minibatches, sizes, version)

    def save(self, folder: str, version: int, resumable: bool) -> None:
        self._worker.save(folder, version, resumable)

    def load(self, folder: str, version: int) -> None:
        self._worker.load(folder, version)


class RewardModelActor(_Actor):
    _model: RewardModel

    def __init__(self, config: RewardFunctionConfig) -> None:
        super().__init__()
        self._config = config

    def load(self) -> None:
        from rlsync.rewards.reward_model import RewardModel

        self._model = RewardModel(self._config, "cuda" if self._config.model_gpus else "cpu")

    def score(self, prompts: list[str], completions: list[str]) -> ModelScores:
        return self._model.score(prompts, completions)


class RolloutActor(_Actor):
    _engine: RolloutEngine
    _workers: Children

    def start(self, settings: EngineSettings, index: int, gpus: tuple[str, ...]) -> None:
        """`gpus` are a colocated engine's; () leaves it those that Ray gave it."""
        take_gpus(gpus)
        from rlsync.rollout.engine import RolloutEngine

        self._engine = RolloutEngine(settings)
        pids = enumerate(self._engine.worker_pids())
        names = {pid: f"TP worker {rank} of rollout engine {index}" for rank, pid in pids if pid != os.getpid()}
        self._workers = Children(names)

    def fingerprints(self) -> list[str]:
        return self._engine.fingerprints()

    def connect(self, plan: SyncPlan, seats: list[Seat]) -> None:
        self._engine.connect(plan, seats)

    def generate(self, requests: list[RolloutRequest]) -> Iterator[list[tuple[int, Rollout]]]:
        """A stream of what each step of the engine finishes: indices of requests, and rollouts."""
        try:
            yield from self._engine.stream(requests)
        except Exception as error:
            raise self._explained(error) from error

    def sleep(self) -> None:
        self._engine.sleep()

    def wake(self) -> None:
        self._engine.wake()

    def receive_weights(self, version: int, fault: Fault) -> list[TensorDigest]:
        try:
            return self._engine.receive_weights(version, fault)
        except Exception as error:
            raise self._explained(error) from error

    def segments(self) -> list[str]:
        """Files of shared memory that its processes hold."""
        return self._workers.segments()

    def shutdown(self) -> None:
        """End the TP workers and free their shared memory."""
        segments = self.segments()
        self._workers.let_go()
        self._engine.shutdown()
        remove(segments)

    def _explained(self, error: Exception) -> Exception:
        dead = self._workers.first_dead
        return WorkerDiedError(f"{dead} died: it was killed, ran out of memory, or crashed") if dead else error
