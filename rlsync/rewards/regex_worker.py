"""The job of a worker process for reward=regex."""

from __future__ import annotations

import re
from collections.abc import Callable


def make(pattern: str) -> Callable[[tuple[str, str]], float]:
    """Make the job of a worker: f((completion, answer)) -> reward, as RegexReward describes."""
    compiled = re.compile(pattern, re.DOTALL)

    def score(request: tuple[str, str]) -> float:
        completion, answer = request
        matches = list(compiled.finditer(completion))
        if not matches or not compiled.groups:
            return float(bool(matches))
        return float((matches[-1].group(1) or "").strip() == answer.strip())

    return score
