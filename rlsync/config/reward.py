"""Configuration of the reward."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum

from rlsync.config.judge import check_judge_url
from rlsync.errors import ConfigError


class RewardKind(StrEnum):
    """Which reward function scores responses."""

    task = "task"
    """The data source's own scorer (reasoning-gym's; exact match for files and hub data)."""
    exact = "exact"
    """1 if the response, stripped of surrounding blanks, equals the answer exactly, else 0."""
    regex = "regex"
    """1 if the first group of reward.pattern matches the answer, surrounding blanks aside; without a group any match
    scores 1."""
    math_verify = "math_verify"
    """Symbolic comparison of mathematical answers."""
    code = "code"
    """Generated Python against the tests in the problem's answer, run in a sandbox (rewards/code_reward.py)."""
    judge = "judge"
    """An HTTP service that returns a reward (rewards/judge.py)."""
    model = "model"
    """A Hugging Face sequence classifier with one label (rewards/reward_model.py)."""
    function = "function"
    """A Python function, reward.function=package.module:name."""


class Isolation(StrEnum):
    """Where the user's reward function is called."""

    thread = "thread"
    """In a thread of the driver. This is cheap, and calls can share state, but a call that hangs cannot be ended."""
    process = "process"
    """In worker processes, one call at a time in each: for functions that use signals, hold the GIL or may hang. A call
    that takes longer than reward.timeout_s is killed."""


@dataclass(kw_only=True, slots=True)
class RewardFunctionConfig:
    """Configuration of one reward function, with the fields that each kind needs."""

    kind: RewardKind = RewardKind.task
    function: str = ""
    """`package.module:name` of f(completion: str, problem: Problem) -> float, `async def` or not
    (reward.kind=function)."""
    batched: bool = False
    """reward.function is f(completions: list[str], problems: list[Problem]) -> list[float], with one number for each
    completion."""
    batch_size: int = 32
    """Number of samples in one call with reward.batched. They are consecutive, so a call gets whole groups if
    group_size divides this number."""
    isolation: Isolation = Isolation.thread
    """Where reward.function runs."""
    timeout_s: float = 0.0
    """Longest call of reward.function in seconds; samples of a longer call get no reward; 0 = no limit. For task, regex
    and math_verify it limits the CPU time for one response; a response that needs more counts as wrong; 0 = 3 s."""
    parallel: int = 16
    """Number of concurrent calls of a judge or an async function. Other functions of the user in threads get one call
    at a time."""
    boxed: bool = False
    r"""Only the contents of \boxed{} are an answer, so that a number at the end without a box earns nothing
    (reward.kind=math_verify)."""
    pattern: str = ""
    """Regular expression, searched in the whole response; the last match counts (reward.kind=regex)."""
    judge_url: str = ""
    """Address of a service that gets {"prompt", "completion", "answer"} as JSON and returns {"reward": number}
    (reward.kind=judge)."""
    judge_token_env: str = ""
    """Name of the environment variable that holds the judge's secret, which is sent as `Authorization: Bearer`. The
    configuration is written to config.yaml and to wandb, so it must not contain a secret."""
    judge_timeout_s: float = 30.0
    """Longest time of one request in seconds, from the connection to the last byte of the answer."""
    judge_retries: int = 3
    """Number of further requests after a failure, with growing pauses between them."""
    model_path: str = ""
    """Folder or hub id of a sequence classifier with one label, whose logit is the reward (reward.kind=model)."""
    model_max_tokens: int = 4096
    """Longest text of prompt and completion in tokens; longer texts lose their beginning."""
    model_gpus: float = 0.0
    """GPUs that Ray reserves for the reward model; 0 = it runs on CPUs."""
    code_timeout_s: float = 5.0
    """CPU time in seconds of a program on one input, or on all calls and assertions of its answer, however busy the
    machine is. The program may also sleep for this long."""
    code_memory_mib: int = 512
    """Address space of a program in MiB."""
    code_partial: bool = False
    """The reward is the share of tests that pass, instead of all or nothing."""

    def __post_init__(self) -> None:
        needed = {
            RewardKind.function: ("function", self.function, "package.module:name"),
            RewardKind.regex: ("pattern", self.pattern, r"for example '####\s*(-?\d+)'"),
            RewardKind.judge: ("judge_url", self.judge_url, "the address of a service"),
            RewardKind.model: ("model_path", self.model_path, "the folder or hub id of a sequence classifier"),
        }
        if self.kind in needed and not needed[self.kind][1]:
            name, _, want = needed[self.kind]
            raise ConfigError(f"reward.{name} is empty, and reward.kind={self.kind} needs it. Give {want}")
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ConfigError(f"reward.pattern={self.pattern!r} is not a regular expression: {error}") from error
        self._check_function()
        if self.judge_url:
            check_judge_url(self.judge_url)
        if self.judge_timeout_s <= 0 or self.judge_retries < 0:
            raise ConfigError(
                f"reward.judge_timeout_s={self.judge_timeout_s}, reward.judge_retries={self.judge_retries}: the time "
                "must be positive, and the number of retries must not be negative"
            )
        if self.model_max_tokens < 1 or self.model_gpus < 0:
            raise ConfigError(
                f"reward.model_max_tokens={self.model_max_tokens}, reward.model_gpus={self.model_gpus}: the former "
                "must be at least 1, and the latter must not be negative"
            )
        if self.code_timeout_s <= 0 or self.code_memory_mib < 64:
            raise ConfigError(
                f"reward.code_timeout_s={self.code_timeout_s}, reward.code_memory_mib={self.code_memory_mib}: the time "
                "must be positive, and the memory at least 64 MiB, which Python itself needs"
            )

    def _check_function(self) -> None:
        if self.batch_size < 1 or self.parallel < 1 or self.timeout_s < 0:
            raise ConfigError(
                f"reward.batch_size={self.batch_size}, reward.parallel={self.parallel}, "
                f"reward.timeout_s={self.timeout_s}: batch_size and parallel must be at least 1, and timeout_s must "
                "not be negative"
            )


@dataclass(kw_only=True, slots=True)
class WeightedReward(RewardFunctionConfig):
    """One function of a weighted sum."""

    weight: float = 1.0
    """Factor of this function's number in the sum."""


@dataclass(kw_only=True, slots=True)
class RewardConfig(RewardFunctionConfig):
    """Configuration of the reward: one function, or the weighted sum of several."""

    parts: dict[str, WeightedReward] = field(default_factory=dict)
    """Functions of the weighted sum, by name; with parts, `kind` is not read. `+reward@reward.parts.NAME=OPTION`
    adds one, and `reward.parts.NAME.weight=0.5` sets its weight."""
    finish_timeout_s: float = 1800.0
    """Longest wait in seconds for scores after all responses of a step have arrived; samples without a score by then
    get no reward."""
    shuffle: bool = False
    """Control: permute the rewards of a step among its samples, so that they carry no information."""

    def __post_init__(self) -> None:
        RewardFunctionConfig.__post_init__(self)
        if self.finish_timeout_s <= 0:
            raise ConfigError(f"reward.finish_timeout_s={self.finish_timeout_s}: must be positive")

    @property
    def gpu_shares(self) -> list[float]:
        """GPUs of each reward model that runs on a GPU; a model that several parts name is listed once."""
        functions: list[RewardFunctionConfig] = [*self.parts.values()] or [self]
        shares = {f.model_path: f.model_gpus for f in functions if f.kind is RewardKind.model}
        return [share for share in shares.values() if share]
