"""The root of a training run's configuration, and the rules across its components."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from rlsync.config.alarms import AlarmConfig, check_alarms
from rlsync.config.algorithm import AlgorithmConfig
from rlsync.config.cluster import ClusterConfig, Device, Placement
from rlsync.config.critic import CriticConfig
from rlsync.config.data import DataConfig
from rlsync.config.environment import EnvironmentConfig
from rlsync.config.evaluation import EvalConfig
from rlsync.config.kernels import KernelMode, KernelsConfig, RowParallel
from rlsync.config.model import ModelConfig
from rlsync.config.numbers import check_seed
from rlsync.config.parity import Fault, ParityConfig
from rlsync.config.reward import RewardConfig
from rlsync.config.rollout import RolloutConfig
from rlsync.config.telemetry import TelemetryConfig
from rlsync.config.trainer import TrainerConfig
from rlsync.errors import ConfigError
from rlsync.kernels import order
from rlsync.paths import expanded


@dataclass(kw_only=True, slots=True)
class RunConfig:
    """Name and folder of a run, and whether it resumes."""

    name: str = "run"
    """Name of the run, of its folder and of its wandb run; a recipe's name if there is a recipe."""
    recipe: str = ""
    """Name of the run's recipe, which recipe=NAME sets; empty = none."""
    dir: str = ""
    """Run folder; empty = runs/<name>."""
    resume: bool = False
    """Resume from the newest checkpoint of the run folder that has the trainer's state (trainer.save_every); without
    one, start at the first step."""

    def __post_init__(self) -> None:
        if not self.dir and (self.name.strip("./ ") == "" or not self.name.isprintable()):
            raise ConfigError(
                f"run.name={self.name!r}: must consist of printable characters and name the folder runs/<name>. Give "
                "another name, or a folder as run.dir"
            )

    @property
    def folder(self) -> Path:
        """Absolute path of the run folder."""
        return expanded(self.dir or f"runs/{self.name}").resolve()


@dataclass(kw_only=True, slots=True)
class TrainConfig:
    """Configuration of a training run, with one component for each part of the system."""

    seed: int = 0
    """Seed of the run: of the draws of all responses, the choice and order of training problems, and the initial values
    of LoRA adapters. With exact kernels, equal seeds and configurations on one machine give equal runs."""
    run: RunConfig = field(default_factory=RunConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    environment: EnvironmentConfig = field(default_factory=EnvironmentConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    critic: CriticConfig = field(default_factory=CriticConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    kernels: KernelsConfig = field(default_factory=KernelsConfig)
    parity: ParityConfig = field(default_factory=ParityConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    telemetry: TelemetryConfig = field(default_factory=TelemetryConfig)
    alarms: dict[str, AlarmConfig] = field(default_factory=dict)
    """Alarms by name. configs/alarms/default.yaml has those of every run; `+alarms.slow.metric=time/step
    +alarms.slow.above=60` adds one."""
    cluster: ClusterConfig = field(default_factory=ClusterConfig)

    def __post_init__(self) -> None:
        check_seed("seed", self.seed)
        samples = self.algorithm.prompts_per_step * self.algorithm.group_size
        wanted = self.trainer.ranks * self.trainer.minibatches
        if samples < wanted:
            raise ConfigError(
                f"algorithm.prompts_per_step * algorithm.group_size = {samples} samples a step are fewer than "
                f"trainer.ranks * trainer.minibatches = {wanted}: some rank would have no sample to train on. Raise "
                "the former."
            )
        if self.kernels.mode is KernelMode.invariant and self.kernels.row_parallel is RowParallel.tree:
            order.local_leaves(self.leaves, self.rollout.tp)
        self._check_placement()
        self._check_fault()
        self._check_algorithm()
        self._check_critic()
        check_alarms(self.alarms)
        self.data.check()
        self.eval.check()
        self._check_prompts("data", self.data)
        for name, data in self.eval.sets.items():
            self._check_prompts(f"eval.sets.{name}", data)

    def _check_fault(self) -> None:
        fault, step = self.parity.fault, self.parity.fault_step
        if fault is Fault.none:
            return
        if self.kernels.mode is KernelMode.native:
            raise ConfigError(
                f"parity.fault={fault}: with kernels=native the bits differ anyway, so a fault cannot be detected. Use "
                "kernels=invariant, or parity.fault=none"
            )
        if not 1 <= step <= self.trainer.steps:
            raise ConfigError(
                f"parity.fault_step={step}: parity.fault={fault} is planted in one of the steps 1 to "
                f"trainer.steps={self.trainer.steps}; parity.fault=none plants none"
            )

    def _check_algorithm(self) -> None:
        algorithm, minibatches = self.algorithm, self.trainer.minibatches
        if algorithm.tis_cap and self.kernels.mode is KernelMode.invariant:
            raise ConfigError(
                f"algorithm.tis_cap={algorithm.tis_cap}: with kernels=invariant the trainer's probabilities equal the "
                "rollout's bit for bit, so every weight would be 1. Use algorithm.tis_cap=0, or kernels=native."
            )
        if algorithm.overlong_buffer > self.rollout.max_tokens:
            raise ConfigError(
                f"algorithm.overlong_buffer={algorithm.overlong_buffer} is longer than the longest response, "
                f"rollout.max_tokens={self.rollout.max_tokens}: every response would be penalised. Use a fifth of "
                "rollout.max_tokens."
            )
        if algorithm.dynamic_sampling and minibatches > algorithm.group_size:
            raise ConfigError(
                f"trainer.minibatches={minibatches} > algorithm.group_size={algorithm.group_size}: dynamic sampling "
                "may end with one group, and some minibatch would have no sample. Lower the former."
            )

    def _check_critic(self) -> None:
        if self.algorithm.has_critic and self.critic.warmup_steps >= self.trainer.steps:
            raise ConfigError(
                f"critic.warmup_steps={self.critic.warmup_steps} is not less than trainer.steps={self.trainer.steps}: "
                "the policy would never train. Lower the former."
            )

    def _check_prompts(self, name: str, data: DataConfig) -> None:
        for part, source in data.sources.items():
            if source.max_prompt_tokens + self.rollout.max_tokens > self.rollout.max_model_len:
                field_name = f"{name}.parts.{part}" if part else name
                raise ConfigError(
                    f"{field_name}.max_prompt_tokens={source.max_prompt_tokens} + "
                    f"rollout.max_tokens={self.rollout.max_tokens} exceed rollout.max_model_len="
                    f"{self.rollout.max_model_len}: raise the last or lower one of the others"
                )

    def _check_placement(self) -> None:
        cluster, rollout = self.cluster, self.rollout
        if rollout.sleep and (cluster.device is Device.cpu or cluster.placement is Placement.separate):
            raise ConfigError(
                "rollout.sleep=true frees GPU memory for the trainer, but with "
                f"cluster.device={cluster.device}, cluster.placement={cluster.placement} trainer and engines share no "
                "GPU. Leave rollout.sleep out."
            )
        if cluster.device is Device.cpu:
            if rollout.kv_cache_mib < 1:
                raise ConfigError(f"rollout.kv_cache_mib={rollout.kv_cache_mib}: on CPUs it must be at least 1")
            return
        workers = rollout.engines * rollout.tp
        if cluster.placement is Placement.colocated and workers > self.trainer.ranks:
            raise ConfigError(
                f"cluster.placement=colocated: rollout.engines={rollout.engines} * rollout.tp={rollout.tp} workers are "
                f"more than the GPUs of trainer.ranks={self.trainer.ranks}. Use more ranks, fewer workers, or "
                "cluster.placement=separate."
            )

    @property
    def share_prefixes(self) -> bool:
        """Whether packs share prefixes. Stock kernels cannot attend along a prefix tree."""
        wanted, on_cpu = self.trainer.prefix_tree, self.cluster.device is Device.cpu
        return self.kernels.mode is KernelMode.invariant and (on_cpu if wanted is None else wanted)

    @property
    def leaves(self) -> int:
        """Number of leaves of the reduction tree, as KernelsConfig.leaves gives it."""
        return self.kernels.leaves(self.rollout.tp)
