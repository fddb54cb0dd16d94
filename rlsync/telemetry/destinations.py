"""Decides where metrics go. The command line does so before it imports torch and Ray, so the user hears of it soon."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec

from rlsync.config.telemetry import TelemetryConfig
from rlsync.errors import ConfigError
from rlsync.telemetry.wandb_mode import WandbChoice, ask_server, choose_mode


def choose_destinations(config: TelemetryConfig, say: Callable[[str], None]) -> WandbChoice:
    """Decide where the metrics go, and say so if the run is offline although this machine is logged in to wandb.

    Raises:
        ConfigError: wandb's server or TensorBoard is asked for and cannot be used.
    """
    if config.tensorboard and find_spec("tensorboard") is None:
        raise ConfigError(
            "telemetry.tensorboard=true needs the package tensorboard. Install rlsync's extra tensorboard, "
            "pip install 'rlsync[tensorboard]', or leave the setting out."
        )
    choice = choose_mode(config, os.environ, ask_server)
    if choice.reason:
        say(f"wandb is offline: {choice.reason}")
    return choice
