"""All actors of a run: their start, calls to all of them at once, and their end."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import psutil
import ray

from rlsync.cluster.actors import RewardModelActor
from rlsync.cluster.calls import Member, gather
from rlsync.cluster.children import end_processes, remove
from rlsync.cluster.env import trainer_variables
from rlsync.cluster.gpus import feeders
from rlsync.cluster.launch import make_actor, make_engines, make_trainers, shared_places
from rlsync.cluster.run_plan import RunPlan
from rlsync.config.cluster import Device
from rlsync.config.run import TrainConfig
from rlsync.errors import DivergenceError
from rlsync.rewards.model_reward import ModelReward
from rlsync.rewards.reward_model import ModelScores
from rlsync.weight_sync.plan import BUCKET_BYTES, GPU_BUCKET_BYTES, ParamSpec, make_plan
from rlsync.weight_sync.transport import seats

_GRACE_S = 10.0


class Cluster:
    """All actors of a run. `close` ends them and all their descendants.

    Args:
        config: The run's configuration.
        plan: The processes to start.
        reward_models: Rewards that need a model. Each model gets one actor, to which its rewards are connected.
    """

    def __init__(
        self,
        config: TrainConfig,
        plan: RunPlan,
        *,
        reward_models: Sequence[ModelReward] = (),
    ) -> None:
        self._config, self._plan = config, plan
        self._processes: dict[int, psutil.Process] = {}
        self._segments: list[str] = []
        self.trainers: list[Member] = []
        self.engines: list[Member] = []
        self.reward_models: list[Member] = []
        self.fingerprint: str | None = None
        """Fingerprint of the kernels, on which all processes agree; None with kernels=native."""
        try:
            self._start(reward_models)
        except BaseException:
            self.close()
            raise

    def _start(self, rewards: Sequence[ModelReward]) -> None:
        plan, cluster = self._plan, self._config.cluster
        self.trainers = make_trainers(cluster, plan)
        places = shared_places(cluster, plan, self.trainers)
        self.engines = make_engines(cluster, plan, places)
        self.reward_models = self._make_reward_models(rewards)
        self._remember_pids()
        starts = []
        if self.trainers:
            asked = (self.trainers[0], self.trainers[0].handle.serve_store.remote(plan.local))
            (store,) = gather([asked], stage="start-up", timeout_s=cluster.startup_timeout_s)
            starts = [(m, m.handle.start.remote(plan.trainer, r, store)) for r, m in enumerate(self.trainers)]
        if places and not plan.engine.rollout.kv_cache_mib:  # vLLM measures the memory that the trainer leaves free
            gather(starts, stage="start-up", timeout_s=cluster.startup_timeout_s)
        gpus = [place.gpus for place in places] or [()] * len(self.engines)
        starts += [(m, m.handle.start.remote(plan.engine, i, gpus[i])) for i, m in enumerate(self.engines)]
        starts += [(member, member.handle.load.remote()) for member in self.reward_models]
        started = gather(starts, stage="start-up", timeout_s=cluster.startup_timeout_s)
        self._remember_pids()
        if plan.local:
            held = self.on_engines("start-up", lambda h: h.segments.remote())
            self._segments = [path for engine in held for path in engine]
        self._check_fingerprints()
        if self.trainers:
            self._connect(started[0])

    def _make_reward_models(self, rewards: Sequence[ModelReward]) -> list[Member]:
        members: dict[str, Member] = {}
        for reward in rewards:
            config = reward.config
            if config.model_path not in members:
                variables = trainer_variables(self._plan.trainer, local=self._plan.local)
                actor = make_actor(
                    RewardModelActor, config, num_cpus=0, num_gpus=config.model_gpus, variables=variables
                )
                members[config.model_path] = Member(f"reward model {config.model_path}", actor)
            reward.connect(partial(self._score, members[config.model_path]))
        return list(members.values())

    def _score(self, member: Member, prompts: list[str], completions: list[str]) -> ModelScores:
        call = (member, member.handle.score.remote(prompts, completions))
        return gather([call], stage="scoring", timeout_s=self._timeout)[0]

    def everyone(self) -> list[Member]:
        """Return all actors of the run."""
        return [*self.trainers, *self.engines, *self.reward_models]

    def on_trainers(self, stage: str, call: Callable[[Any], Any]) -> list[Any]:
        """Call something on every trainer rank at once, and return the results; `call` gets the actor's handle."""
        return gather([(m, call(m.handle)) for m in self.trainers], stage=stage, timeout_s=self._timeout)

    def on_engines(self, stage: str, call: Callable[[Any], Any]) -> list[Any]:
        """Call something on every engine at once, and return the results; `call` gets the actor's handle."""
        return gather([(m, call(m.handle)) for m in self.engines], stage=stage, timeout_s=self._timeout)

    def device_name(self) -> str:
        """Return the name of the first trainer rank's GPU or processor."""
        return self.on_trainers("handshake", lambda h: h.device_name.remote())[0]

    @property
    def _timeout(self) -> float:
        return self._config.cluster.stage_timeout_s

    def _remember_pids(self) -> None:
        pids = gather([(m, m.handle.pids.remote()) for m in self.everyone()], stage="start-up", timeout_s=self._timeout)
        if self._plan.local:
            for pid in {pid for member in pids for pid in member} - self._processes.keys():
                self._processes[pid] = psutil.Process(pid)

    def _check_fingerprints(self) -> None:
        if self._plan.engine.native:
            return
        trainers = self.on_trainers("handshake", lambda h: h.fingerprint.remote())
        engines = self.on_engines("handshake", lambda h: h.fingerprints.remote())
        workers = [f for engine in engines for f in engine]
        self.fingerprint = workers[0]
        if len({*trainers, *workers}) != 1:
            raise DivergenceError(
                f"handshake: trainer ranks report kernels {trainers}, but rollout workers report {workers}. They run "
                "different versions, settings or processors. Install the same packages on every node."
            )

    def _connect(self, specs: list[ParamSpec]) -> None:
        tp, sources = self._plan.tp, feeders(self._plan)
        on_gpus = self._plan.device is Device.cuda
        plan = make_plan(specs, len(self.trainers), GPU_BUCKET_BYTES if on_gpus else BUCKET_BYTES)
        local = self._plan.local
        opened = {
            rank: (self.trainers[rank], self.trainers[rank].handle.open_channel.remote(receivers, local))
            for rank, receivers in Counter(sources).items()
        }
        found = gather(list(opened.values()), stage="weight channels", timeout_s=self._timeout)
        places = seats(sources, dict(zip(opened, found, strict=True)))
        calls = [(m, m.handle.connect.remote(plan)) for m in self.trainers]
        calls += [(m, m.handle.connect.remote(plan, places[i * tp : (i + 1) * tp])) for i, m in enumerate(self.engines)]
        gather(calls, stage="weight channels", timeout_s=self._timeout)

    def close(self) -> None:
        """End every actor and its descendants. It may be called twice, and in any state of the actors."""
        for member in self.engines:
            with contextlib.suppress(Exception):  # the actor may be dead already, and is killed next
                ray.get(member.handle.shutdown.remote(), timeout=_GRACE_S)
        for member in self.everyone():
            with contextlib.suppress(Exception):
                ray.kill(member.handle)
        self.trainers, self.engines, self.reward_models = [], [], []
        end_processes(list(self._processes.values()), _GRACE_S)
        remove(self._segments)
