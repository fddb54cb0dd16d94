"""Conditions under which a field is read; a field that READ does not list is always read."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from rlsync.config.alarms import AlarmConfig, AlarmKind, Reference
from rlsync.config.algorithm import AdvantageKind, AlgorithmConfig, LossKind
from rlsync.config.cluster import ClusterConfig, Device
from rlsync.config.data import DataConfig, DataSource
from rlsync.config.environment import EnvironmentConfig, EnvironmentKind
from rlsync.config.evaluation import EvalConfig
from rlsync.config.kernels import KernelMode, KernelsConfig, RowParallel
from rlsync.config.lora import LoraConfig
from rlsync.config.model import ModelConfig, ModelSource
from rlsync.config.parity import Fault, ParityConfig
from rlsync.config.reward import RewardConfig, RewardFunctionConfig, RewardKind
from rlsync.config.rollout import RolloutConfig
from rlsync.config.run import TrainConfig
from rlsync.config.telemetry import TelemetryConfig, WandbMode
from rlsync.config.trainer import Schedule, TrainerConfig
from rlsync.paths import expanded

_SET = "Set that"


@dataclass(frozen=True, slots=True)
class Condition:
    """A requirement on another field."""

    field: str
    """Name of a field of the same component, or, if it contains a dot, a key of the run's configuration."""
    holds: Callable[[Any], bool]
    wanted: str
    """Text that follows the field's name in a message."""
    advice: str = _SET
    """How to fix it; {at} stands for the component's key and {name} for the name of the unread field."""


Rule = tuple[Condition, ...]
"""A rule holds if one of its conditions holds."""


def shown(value: Any) -> str:
    """Return a value as it is written in YAML, on one line and shortened to 80 characters."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        value = ", ".join(value)
    text = "null" if value is None else str(value)
    return repr(text) if not text or not text.isprintable() else text if len(text) <= 80 else text[:80] + "..."


def where(field: str, *values: Any, advice: str = _SET) -> Rule:
    """Require that another field has one of the values."""
    wanted = f"={' or '.join(shown(value) for value in values)}"
    return (Condition(field, lambda value: value in values, wanted, advice),)


def unless(field: str, value: Any) -> Rule:
    """Require that another field does not have the value."""
    return (Condition(field, lambda other: other != value, f" other than {shown(value)}"),)


def given(field: str) -> Rule:
    """Require that another field is a text that is not empty, or a number that is not 0."""
    return (Condition(field, bool, " set"),)


def empty(field: str) -> Rule:
    """Require that another field is empty."""
    return (Condition(field, lambda value: not value, " empty"),)


_IN_PARTS = "Set {at}.parts.NAME.{name} of each part"
_ROWS = (DataSource.file, DataSource.hub)
_TIMED = (RewardKind.function, RewardKind.task, RewardKind.regex, RewardKind.math_verify)
_TIMEOUTS = "Set that, for a judge {at}.judge_timeout_s, for code {at}.code_timeout_s"
_NO_MIXTURE: Rule = (
    Condition("source", lambda s: s is not DataSource.mixture, "=reasoning_gym, file or hub", _IN_PARTS),
)
# A user may add a checkpoint's model.path to the command that trained the tiny model, to evaluate it or to train it
# further; then the tiny model's fields in that command have no effect and are accepted.
_TINY = (*where("source", ModelSource.tiny), Condition("path", lambda path: expanded(path).is_dir(), ", a folder"))
_PRESENT = where("kind", EnvironmentKind.calculator, EnvironmentKind.custom)
_GPU = where("cluster.device", Device.cuda)
_EXACT = where("kernels.mode", KernelMode.invariant)
_CRITIC = where("advantage", AdvantageKind.gae)
_WANDB = unless("wandb", WandbMode.disabled)
_BOUNDED = where("kind", AlarmKind.threshold, AlarmKind.trend)
_TREND = where("kind", AlarmKind.trend)
_NO_PARTS: Rule = (Condition("parts", lambda parts: not parts, " empty", _IN_PARTS),)

READ: dict[type, dict[str, list[Rule]]] = {
    TrainConfig: {"critic": [where("algorithm.advantage", AdvantageKind.gae)]},
    ModelConfig: {
        "path": [where("source", ModelSource.huggingface)],
        "revision": [
            where("source", ModelSource.huggingface),
            (Condition("path", lambda path: not expanded(path).is_dir(), ", a hub id"),),
        ],
        "cache_dir": [_TINY],
        "tiny": [_TINY],
    },
    LoraConfig: {"alpha": [given("rank")], "targets": [given("rank")]},
    DataConfig: {
        "task": [where("source", DataSource.reasoning_gym)],
        "task_args": [where("source", DataSource.reasoning_gym)],
        "squeeze": [where("source", DataSource.reasoning_gym)],
        "path": [where("source", *_ROWS)],
        "eval_path": [where("source", *_ROWS)],
        "prompt_column": [where("source", *_ROWS)],
        "answer_column": [where("source", *_ROWS)],
        "answer_parser": [where("source", *_ROWS)],
        "subset": [where("source", DataSource.hub)],
        "hub_split": [where("source", DataSource.hub)],
        "eval_split": [where("source", DataSource.hub)],
        "template": [_NO_MIXTURE],
        "chat": [_NO_MIXTURE],
        "system_prompt": [_NO_MIXTURE, where("chat", True)],
        "chat_args": [_NO_MIXTURE, where("chat", True)],
        "keep_special_tokens": [_NO_MIXTURE],
        "max_prompt_tokens": [_NO_MIXTURE],
        # With a separate table of held-out problems, this field only shifts which problems the warm start sees.
        "held_out_percent": [
            empty("eval_path") + given("warm_start_percent"),
            empty("eval_split") + given("warm_start_percent"),
        ],
        "parts": [where("source", DataSource.mixture)],
    },
    EnvironmentConfig: {
        "path": [where("kind", EnvironmentKind.custom)],
        "args": [where("kind", EnvironmentKind.custom)],
        "max_turns": [_PRESENT],
        "timeout_s": [_PRESENT],
        "parallel": [_PRESENT],
        "call_end": [_PRESENT],
        "role": [_PRESENT],
        "template": [_PRESENT],
        "scored": [_PRESENT],
    },
    RewardFunctionConfig: {
        "function": [where("kind", RewardKind.function)],
        "batched": [where("kind", RewardKind.function)],
        "batch_size": [where("kind", RewardKind.model) + where("batched", True)],
        "timeout_s": [where("kind", *_TIMED, advice=_TIMEOUTS)],
        "isolation": [where("kind", RewardKind.function)],
        "boxed": [where("kind", RewardKind.math_verify)],
        "parallel": [where("kind", RewardKind.judge, RewardKind.function)],
        "pattern": [where("kind", RewardKind.regex)],
        "judge_url": [where("kind", RewardKind.judge)],
        "judge_token_env": [where("kind", RewardKind.judge)],
        "judge_timeout_s": [where("kind", RewardKind.judge)],
        "judge_retries": [where("kind", RewardKind.judge)],
        "model_path": [where("kind", RewardKind.model)],
        "model_max_tokens": [where("kind", RewardKind.model)],
        "model_gpus": [where("kind", RewardKind.model)],
        "code_timeout_s": [where("kind", RewardKind.code)],
        "code_memory_mib": [where("kind", RewardKind.code)],
        "code_partial": [where("kind", RewardKind.code)],
    },
    RewardConfig: {field.name: [_NO_PARTS] for field in fields(RewardFunctionConfig)},
    AlgorithmConfig: {
        "normalize_std": [
            where("advantage", AdvantageKind.grpo, advice="Set that, or with gae use algorithm.whiten"),
        ],
        "gamma": [_CRITIC],
        "gae_lambda": [_CRITIC],
        "whiten": [_CRITIC],
        "dual_clip": [where("loss", LossKind.ppo_clip)],
        "kl": [given("kl_coef")],
        "kl_in": [given("kl_coef")],
        "kl_model": [given("kl_coef")],
        "overlong_penalty": [given("overlong_buffer")],
        "max_resamples": [where("dynamic_sampling", True)],
    },
    TrainerConfig: {
        "min_lr_ratio": [unless("schedule", Schedule.constant)],
        "prefix_tree": [_EXACT],
        "save_keep": [given("save_every")],
    },
    RolloutConfig: {
        "gpu_memory_utilization": [_GPU, where("kv_cache_mib", 0)],
        "cuda_graphs": [_GPU],
        "weight_path": [_EXACT, _GPU, where("sleep", False)],
    },
    KernelsConfig: {
        "tree_leaves": [_EXACT, where("row_parallel", RowParallel.tree)],
        "row_parallel": [_EXACT],
        "all_reduce": [_EXACT, _GPU, where("row_parallel", RowParallel.tree)],
    },
    ParityConfig: {"fault_step": [unless("fault", Fault.none)]},
    EvalConfig: {
        "every": [given("problems")],
        "samples": [given("problems")],
        "sets": [given("problems")],
        "only": [given("problems")],
        "k": [given("samples")],
    },
    TelemetryConfig: {
        "project": [_WANDB],
        "entity": [_WANDB],
        "tags": [_WANDB],
        "samples": [_WANDB, given("samples_every")],
        "samples_every": [_WANDB],
        "samples_logprobs": [_WANDB, given("samples_every")],
    },
    AlarmConfig: {
        "over": [unless("kind", AlarmKind.not_finite)],
        "above": [_BOUNDED],
        "below": [_BOUNDED],
        "reference": [_TREND],
        "window": [_TREND],
        "history": [_TREND, unless("reference", Reference.first)],
        "min_history": [_TREND, unless("reference", Reference.first)],
        "min_change": [_TREND],
    },
    ClusterConfig: {"placement": [_GPU]},
}
"""Component -> field -> rules that must all hold for it to be read."""

NEVER = (
    (re.compile(r"run\.recipe"), "recipe=NAME sets it"),
    (re.compile(r"(data|eval\.sets\.[^.]+)\.weight"), "only a part of a mixture has a weight"),
    (
        re.compile(r".+\.parts\.[^.]+\.(held_out|warm_start)_percent"),
        "the mixture's own percentage applies to all its parts",
    ),
    (re.compile(r"eval\.sets\.[^.]+\.warm_start_percent"), "an evaluation set uses its held-out problems only"),
)
"""Patterns of keys that are never read, each with the reason."""
