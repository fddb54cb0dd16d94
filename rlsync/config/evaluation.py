"""Configuration of evaluations, those of a training run and those of `rlsync eval`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from difflib import get_close_matches

from rlsync.config.data import DataConfig
from rlsync.errors import ConfigError

HELD_OUT = "held_out"
"""Name of the set of held-out problems of the training data."""


@dataclass(kw_only=True, slots=True)
class EvalConfig:
    """Configuration of evaluations."""

    problems: int = 256
    """Most problems of each set; each is answered greedily; 0 = no evaluation."""
    every: int = 0
    """Evaluate every n steps, besides the evaluations before the first step and after the last one; 0 = never in
    between."""
    samples: int = 0
    """Number of responses to each problem that are sampled at rollout.temperature, besides the greedy one."""
    k: list[int] = field(default_factory=lambda: [1])
    """Values of k for which pass@k is estimated from the sampled responses."""
    sets: dict[str, DataConfig] = field(default_factory=dict)
    """Sets besides `held_out`, by name; the held-out split of each is evaluated."""
    only: list[str] = field(default_factory=list)
    """Names of the sets to evaluate; empty = held_out and all of `sets`."""

    @property
    def chosen(self) -> list[str]:
        """Names of the sets to evaluate. The first one's greedy accuracy is eval/accuracy."""
        return self.only or [HELD_OUT, *self.sets]

    def check(self) -> None:
        """Raise ConfigError for values that are out of range or contradict each other."""
        for name, value in {"problems": self.problems, "every": self.every, "samples": self.samples}.items():
            if value < 0:
                raise ConfigError(f"eval.{name}={value}: must not be negative; 0 switches it off")
        if not self.k or min(self.k) < 1:
            raise ConfigError(f"eval.k={self.k}: must be a list of numbers of at least 1, for example eval.k=[1,8]")
        if max(self.k) > max(1, self.samples):
            raise ConfigError(
                f"eval.k={self.k} with eval.samples={self.samples}: pass@{max(self.k)} needs at least {max(self.k)} "
                f"sampled responses to each problem. Raise eval.samples or lower eval.k"
            )
        for name, data in self.sets.items():
            if name == HELD_OUT or not re.fullmatch(r"[\w-]+", name):
                raise ConfigError(
                    f"eval.sets.{name}: a name must consist of letters, digits, '_' and '-', and must not be "
                    f"{HELD_OUT}, which names the training data's own set"
                )
            data.check(f"eval.sets.{name}", trains=False)
        valid = [HELD_OUT, *self.sets]
        for name in self.only:
            if name not in valid:
                near = get_close_matches(name, valid, n=1)
                raise ConfigError(
                    f"eval.only={self.only}: no set is called {name!r}; the sets are {', '.join(valid)}."
                    + (f" Did you mean {near[0]}?" if near else f" Add it with +data@eval.sets.{name}=OPTION")
                )
