"""How a response is scored."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum

from rlsync.config.judge import check_judge_url
from rlsync.errors import ConfigError


class RewardKind(StrEnum):
    task = "task"
    """The data source's own scorer (reasoning-gym's; exact match for files and hub data)."""
    exact = "exact"
    """1 if the stripped response is the answer, letter for letter, else 0."""
    regex = "regex"
    """1 if reward.pattern finds the answer as its first group (spaces aside); without a group any match will do."""
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
    thread = "thread"
    """Called in a thread of the driver: cheap, and it may share what it holds; it cannot be ended."""
    process = "process"
    """Called in worker processes, one call at a time in each: for functions that use signals, hold the GIL or may
    hang. A call that takes longer than reward.timeout_s is killed."""


@dataclass(kw_only=True, slots=True)
class RewardFunctionConfig:
    """One function, with what its kind needs."""

    kind: RewardKind = RewardKind.task
    function: str = ""
    """`package.module:name` of f(completion: str, problem: Problem) -> float, `async def` or not
    (reward.kind=function)."""
    batched: bool = False
    """reward.function is f(completions: list[str], problems: list[Problem]) -> list[float], one number each."""
    batch_size: int = 32
    """Samples of a call with reward.batched: consecutive ones, so whole groups if group_size divides it."""
    isolation: Isolation = Isolation.thread
    """Where reward.function runs."""
    timeout_s: float = 0.0
    """Longest call of reward.function, after which its samples have no reward; 0: no bound. For task, regex and
    math_verify the CPU time of one answer, after which it is wrong; 0: 3 s."""
    parallel: int = 16
    """Calls at a time of a judge or an async function; of others there is one."""
    boxed: bool = False
    r"""Only what stands in \boxed{} is an answer, so that a trailing number earns nothing (reward.kind=math_verify)."""
    pattern: str = ""
    """Regular expression, searched in the whole response; the last match counts (reward.kind=regex)."""
    judge_url: str = ""
    """Gets {"prompt", "completion", "answer"} as JSON, returns {"reward": number} (reward.kind=judge)."""
    judge_token_env: str = ""
    """Name of the environment variable that holds the judge's secret, which is sent as `Authorization: Bearer`. The
    configuration itself is written to config.yaml and wandb, so no secret belongs into it."""
    judge_timeout_s: float = 30.0
    """Longest time of one request, from the connection to the last byte of the answer."""
    judge_retries: int = 3
    """Further requests after a failure, with growing pauses."""
    model_path: str = ""
    """Folder or hub id of a sequence classifier with one label, whose logit is the reward (reward.kind=model)."""
    model_max_tokens: int = 4096
    """Of a prompt with its completion; longer ones lose their beginning."""
    model_gpus: float = 0.0
    """GPUs that Ray reserves for it; 0 = it runs on CPUs."""
    code_timeout_s: float = 5.0
    """CPU time of a program on one input, or on all calls and assertions of its answer, whatever the load; it may also
    sleep for so long."""
    code_memory_mib: int = 512
    """Address space of a program."""
    code_partial: bool = False
    """Reward the share of tests passed, in place of all or nothing."""

    def __post_init__(self) -> None:
        needed = {
            RewardKind.function: ("function", self.function, "package.module:name"),
            RewardKind.regex: ("pattern", self.pattern, r"for example '####\s*(-?\d+)'"),
            RewardKind.judge: ("judge_url", self.judge_url, "the address of a service"),
            RewardKind.model: ("model_path", self.model_path, "the folder or hub id of a sequence classifier"),
        }
        if self.kind in needed and not needed[self.kind][1]:
            name, _, want = needed[self.kind]
            raise ConfigError(f"reward.{name} is empty, and reward.kind={self.kind} needs it: {want}")
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ConfigError(f"reward.pattern={self.pattern!r} is no regular expression: {error}") from error
        self._check_function()
        if self.judge_url:
            check_judge_url(self.judge_url)
        if self.judge_timeout_s <= 0 or self.judge_retries < 0:
            raise ConfigError(
                f"reward.judge_timeout_s={self.judge_timeout_s}, reward.judge_retries={self.judge_retries}: want a "
                "positive time and no negative number of retries"
            )
        if self.model_max_tokens < 1 or self.model_gpus < 0:
            raise ConfigError(
                f"reward.model_max_tokens={self.model_max_tokens}, reward.model_gpus={self.model_gpus}: want at least "
                "one token, and no negative share of a GPU"
            )
        if self.code_timeout_s <= 0 or self.code_memory_mib < 64:
            raise ConfigError(
                f"reward.code_timeout_s={self.code_timeout_s}, reward.code_memory_mib={self.code_memory_mib}: want a "
                "positive time and at least 64 MiB, which Python itself needs"
            )

    def _check_function(self) -> None:
        if self.batch_size < 1 or self.parallel < 1 or self.timeout_s < 0:
            raise ConfigError(
                f"reward.batch_size={self.batch_size}, reward.parallel={self.parallel}, "
                f"reward.timeout_s={self.timeout_s}: want at least one sample a call, at least one call at a time, and "
                "no negative time"
            )


@dataclass(kw_only=True, slots=True)
class WeightedReward(RewardFunctionConfig):
    weight: float = 1.0


@dataclass(kw_only=True, slots=True)
class RewardConfig(RewardFunctionConfig):
    """One function, or the weighted sum of several."""

    parts: dict[str, WeightedReward] = field(default_factory=dict)
    """By name; they take the place of `kind`. Added with +reward@reward.parts.NAME=OPTION, then
    reward.parts.NAME.weight=0.5 and so on."""
    finish_timeout_s: float = 1800.0
    """Longest wait for scores once all responses of a step are there; samples that have none by then have no
    reward."""
    shuffle: bool = False
    """Control: permute the rewards of a step among its samples, so that they say nothing."""

    def __post_init__(self) -> None:
        RewardFunctionConfig.__post_init__(self)
        if self.finish_timeout_s <= 0:
            raise ConfigError(f"reward.finish_timeout_s={self.finish_timeout_s}: want a positive time")

    @property
    def gpu_shares(self) -> list[float]:
        """GPUs of each reward model that runs on one; a model that several parts name is there once."""
        functions: list[RewardFunctionConfig] = [*self.parts.values()] or [self]
        shares = {f.model_path: f.model_gpus for f in functions if f.kind is RewardKind.model}
        return [share for share in shares.values() if share]
