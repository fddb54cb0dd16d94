"""An HTTP service as the judge of a completion."""

from __future__ import annotations

import itertools
import time

import requests

from rlsync.config.reward import RewardFunctionConfig
from rlsync.types import Problem

_FIRST_PAUSE_S = 0.5


class Judge:
    """Posts {"prompt", "completion", "answer"} as JSON and reads {"reward": number} from the answer.

    A failed request (no connection, a timeout, a status of 4xx or 5xx) is repeated with doubling pauses; the last
    failure is raised, and costs this sample alone.
    """

    def __init__(self, config: RewardFunctionConfig) -> None:
        self._config = config

    def __call__(self, completion: str, problem: Problem) -> float:
        body = {"prompt": problem.prompt, "completion": completion, "answer": problem.answer}
        for attempt in itertools.count():
            try:
                response = requests.post(self._config.judge_url, json=body, timeout=self._config.judge_timeout_s)
                response.raise_for_status()
                return response.json()["reward"]
            except requests.RequestException:
                if attempt == self._config.judge_retries:
                    raise
            time.sleep(_FIRST_PAUSE_S * 2**attempt)
        raise AssertionError("itertools.count ended")
