"""What is evaluated, in training and by `rlsync eval`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from difflib import get_close_matches

from rlsync.config.data import DataConfig
from rlsync.errors import ConfigError

HELD_OUT = "held_out"
"""Name of the set that the training data holds out."""


@dataclass(kw_only=True, slots=True)
class EvalConfig:
    problems: int = 256
    """Most problems of each set, answered greedily; 0 = no evaluation."""
    every: int = 0
    """Evaluate every n steps, besides before the first and after the last."""
    samples: int = 0
    """Responses to each problem that are drawn at rollout.temperature, besides the greedy one."""
    k: list[int] = field(default_factory=lambda: [1])
    """pass@k is estimated from the drawn responses for each of these."""
    sets: dict[str, DataConfig] = field(default_factory=dict)
    """Sets besides `held_out`, by name; what counts of each is its held-out split."""
    only: list[str] = field(default_factory=list)
    """Names of the sets to evaluate; empty = held_out and all of `sets`."""

    @property
    def chosen(self) -> list[str]:
        """Names of the sets to evaluate. The first one's greedy accuracy is eval/accuracy."""
        return self.only or [HELD_OUT, *self.sets]

    def check(self) -> None:
        """Raises ConfigError for what cannot be."""
        for name, value in {"problems": self.problems, "every": self.every, "samples": self.samples}.items():
            if value < 0:
                raise ConfigError(f"eval.{name}={value}: must not be negative; 0 switches it off")
        if not self.k or min(self.k) < 1:
            raise ConfigError(f"eval.k={self.k}: want numbers of at least 1, for example eval.k=[1,8]")
        if max(self.k) > max(1, self.samples):
            raise ConfigError(
                f"eval.k={self.k} with eval.samples={self.samples}: pass@{max(self.k)} needs at least {max(self.k)} "
                f"drawn responses to a problem; raise eval.samples or lower eval.k"
            )
        for name, data in self.sets.items():
            if name == HELD_OUT or not re.fullmatch(r"[\w-]+", name):
                raise ConfigError(
                    f"eval.sets.{name}: want a name of letters, digits, '_' and '-', other than {HELD_OUT}, which "
                    "is the training data's own"
                )
            data.check(f"eval.sets.{name}", trains=False)
        valid = [HELD_OUT, *self.sets]
        for name in self.only:
            if name not in valid:
                near = get_close_matches(name, valid, n=1)
                raise ConfigError(
                    f"eval.only={self.only}: no set is called {name!r}; there is {', '.join(valid)}."
                    + (f" Did you mean {near[0]}?" if near else f" Add it with +data@eval.sets.{name}=OPTION")
                )
