"""Decides, before a run starts its processes, whether its metrics go to wandb's server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from queue import Empty, SimpleQueue

import httpx
import wandb

from rlsync.config.telemetry import TelemetryConfig, WandbMode
from rlsync.errors import ConfigError, first_line
from rlsync.redact import redacted

_REACH_S, _LOGIN_S = 4.0, 5.0
"""Longest waits for the server's first answer, and for its answer to the login."""
_VARIABLE = "WANDB_MODE"
_MODES = {
    "online": WandbMode.online,
    "run": WandbMode.online,
    "shared": WandbMode.online,
    "offline": WandbMode.offline,
    "dryrun": WandbMode.offline,
    "disabled": WandbMode.disabled,
}
"""The values of WANDB_MODE that wandb knows."""


@dataclass(slots=True, frozen=True, kw_only=True)
class WandbChoice:
    """Where the metrics of a run go."""

    mode: WandbMode
    """Never auto."""
    required: bool = False
    """The user asked for online by name, so the run must not go on offline."""
    reason: str = ""
    """Why the run is offline although the user may expect it online; empty if that needs no word."""

    @property
    def writes(self) -> bool:
        """Whether anything is written for wandb."""
        return self.mode is not WandbMode.disabled


@dataclass(slots=True, frozen=True, kw_only=True)
class Server:
    """How wandb's server answers."""

    logged_in: bool
    """Whether this machine has credentials."""
    problem: str | None = None
    """Why it cannot be used; None if it can."""


def choose_mode(config: TelemetryConfig, environ: Mapping[str, str], ask: Callable[[], Server]) -> WandbChoice:
    """Decide on a mode.

    An explicit telemetry.wandb wins over WANDB_MODE, and WANDB_MODE over telemetry.wandb=auto.

    Args:
        config: Configuration of telemetry.
        environ: The process's environment variables.
        ask: Asks wandb's server; called only if the run may be online.

    Raises:
        ConfigError: The user asked for online, and the server cannot be used; or WANDB_MODE has an unknown value.
    """
    wanted, setting = config.wandb, f"telemetry.wandb={config.wandb}"
    if wanted is WandbMode.auto and environ.get(_VARIABLE):
        wanted, setting = _from_environment(environ[_VARIABLE]), f"{_VARIABLE}={environ[_VARIABLE]}"
    if wanted in (WandbMode.offline, WandbMode.disabled):
        return WandbChoice(mode=wanted)
    server = ask()
    usable = server.logged_in and server.problem is None
    if usable:
        return WandbChoice(mode=WandbMode.online, required=wanted is WandbMode.online)
    why = server.problem or "this machine is not logged in to wandb"
    if wanted is WandbMode.online:
        raise ConfigError(
            f"{setting}: {why}. Log in with `wandb login` or WANDB_API_KEY, check the network and WANDB_BASE_URL, or "
            "use telemetry.wandb=offline and sync the run later."
        )
    return WandbChoice(mode=WandbMode.offline, reason=why if server.logged_in else "")


def _from_environment(value: str) -> WandbMode:
    if value not in _MODES:
        raise ConfigError(f"{_VARIABLE}={value}: wandb has no such mode. Valid: {', '.join(_MODES)}")
    return _MODES[value]


def ask_server() -> Server:
    """Ask wandb's server whether it can be used, within about ten seconds. The user is not asked for credentials.

    Raises:
        ConfigError: A variable or a settings file of wandb has a value that it does not accept.
    """
    try:
        url = str(wandb.setup(wandb.Settings(silent=True, mode="online")).settings.base_url)
    except ValueError as error:
        why = " ".join(redacted(str(error)).split())
        raise ConfigError(
            f"wandb does not accept its settings: {why:.300}. Correct the environment variable WANDB_... of that name, "
            "or the file wandb/settings"
        ) from error
    try:
        if not wandb.login(prompt=False, verify=False):
            return Server(logged_in=False)
    except (wandb.errors.AuthenticationError, wandb.errors.UsageError) as error:
        return Server(logged_in=True, problem=f"wandb cannot use this machine's credentials ({_line(error)})")
    if problem := _within(_REACH_S, lambda: _reach(url), f"it did not answer within {_REACH_S:g} s"):
        return Server(logged_in=True, problem=f"wandb's server {redacted(url)} cannot be reached ({problem})")
    if problem := _within(_LOGIN_S, _verify, f"it did not answer within {_LOGIN_S:g} s"):
        return Server(logged_in=True, problem=f"wandb's server {redacted(url)} does not accept the login ({problem})")
    return Server(logged_in=True)


def _reach(url: str) -> str | None:
    """Return why a server does not answer; None if it does, whatever it answers."""
    try:
        httpx.get(f"{url.rstrip('/')}/healthz", timeout=_REACH_S)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return _line(error)
    return None


def _verify() -> str | None:
    """Return why the server does not accept the credentials; None if it does. wandb.login does not always ask it."""
    try:
        _ = wandb.Api(timeout=round(_LOGIN_S)).viewer
    except Exception as error:  # noqa: BLE001  (releases of wandb raise different types)
        return _line(error)
    return None


def _line(error: Exception) -> str:
    return redacted(first_line(error))


def _within(seconds: float, ask: Callable[[], str | None], late: str) -> str | None:
    """Return the result of `ask`, or `late` if it takes longer; a library's own time limits may be much longer."""
    answers: SimpleQueue[str | None] = SimpleQueue()
    threading.Thread(target=lambda: answers.put(ask()), daemon=True).start()
    try:
        return answers.get(timeout=seconds)
    except Empty:
        return late
