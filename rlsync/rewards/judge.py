"""A reward from an HTTP service, the judge."""

from __future__ import annotations

import asyncio
import errno
import itertools
import json
import os
from threading import Thread
from typing import Any

import httpx

from rlsync.config.judge import judge_token
from rlsync.config.reward import RewardFunctionConfig
from rlsync.data.problem import Problem
from rlsync.redact import redacted

_FIRST_PAUSE_S = 0.5
_LONGEST = 1 << 20
"""Longest answer in bytes."""


class JudgeError(Exception):
    """The judge did not return a reward. The message has no secrets."""


class Judge:
    """Posts {"prompt", "completion", "answer"} as JSON and reads {"reward": number} from the answer.

    A failed request (no connection, no complete answer within reward.judge_timeout_s, or a status of 4xx or 5xx) is
    repeated after pauses that double. The last failure is raised, and only its sample gets no reward. Calls from
    several threads share one event loop and its connections.

    Raises:
        ConfigError: The environment variable that reward.judge_token_env names is not set, or its value is malformed.
    """

    def __init__(self, config: RewardFunctionConfig) -> None:
        self._config = config
        self._headers = {}
        if config.judge_token_env:
            self._headers["Authorization"] = f"Bearer {judge_token(config.judge_token_env)}"
        self._client: httpx.AsyncClient | None = None
        self._loop = asyncio.new_event_loop()
        Thread(target=self._loop.run_forever, daemon=True, name="judge").start()

    def __call__(self, completion: str, problem: Problem) -> float:
        """Ask the judge for the reward of a completion.

        Raises:
            JudgeError: The judge did not return a reward.
        """
        body = {"prompt": problem.prompt, "completion": completion, "answer": problem.answer}
        return asyncio.run_coroutine_threadsafe(self._ask(body), self._loop).result()

    async def _ask(self, body: dict[str, str]) -> Any:
        for attempt in itertools.count():
            try:
                async with asyncio.timeout(self._config.judge_timeout_s):  # httpx limits only single reads
                    return await self._post(body)
            except (httpx.HTTPError, TimeoutError) as error:
                if attempt == self._config.judge_retries:
                    raise JudgeError(self._message(error)) from None
            await asyncio.sleep(_FIRST_PAUSE_S * 2**attempt)
        raise AssertionError("itertools.count ended")

    async def _post(self, body: dict[str, str]) -> Any:
        if self._client is None:  # made in the event loop that uses it
            limits = httpx.Limits(max_connections=None)
            self._client = httpx.AsyncClient(headers=self._headers, timeout=None, limits=limits, follow_redirects=True)
        answer = b""
        async with self._client.stream("POST", self._config.judge_url, json=body) as response:
            response.raise_for_status()
            async for chunk in response.aiter_bytes():
                answer += chunk
                if len(answer) > _LONGEST:
                    raise JudgeError(f"the judge's answer is longer than {_LONGEST} bytes")
        try:
            return json.loads(answer)["reward"]
        except (ValueError, KeyError, TypeError) as error:
            raise JudgeError(
                f'the judge\'s answer is not {{"reward": number}} ({type(error).__name__}: {error})'
            ) from None

    def _message(self, error: Exception) -> str:
        """Describe a failure without secrets, even if the service's answer repeats them."""
        if isinstance(error, httpx.HTTPStatusError):
            why = f"HTTP {error.response.status_code}"
        elif isinstance(error, TimeoutError):
            why = f"took longer than reward.judge_timeout_s={self._config.judge_timeout_s:g}"
        else:
            why = f"{type(error).__name__}: {_cause(error)}"
        return f"{redacted(self._config.judge_url)}: {redacted(why)}"


def _cause(error: BaseException) -> str:
    """Return the text of the first error in a chain."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    if isinstance(error, OSError) and error.errno is not None and error.errno in errno.errorcode:
        return os.strerror(error.errno)
    return str(error)
