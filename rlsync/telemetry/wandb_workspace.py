"""A saved workspace of a wandb project, with one section for each question about a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import wandb

from rlsync.errors import ConfigError, RlsyncError, first_line
from rlsync.redact import redacted
from rlsync.telemetry.wandb_mode import ask_server

NAME = "rlsync"
"""Name of the saved view."""
_API_S = 10
"""Longest wait for an answer of wandb's server, in seconds."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Panel:
    """One line plot over the steps."""

    title: str
    metrics: tuple[str, ...]


SECTIONS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "overview",
        (
            Panel(title="reward", metrics=("reward/mean",)),
            Panel(title="held-out accuracy", metrics=("eval/accuracy", "eval/accuracy_initial")),
            Panel(title="tokens that differ", metrics=("parity/tokens_different", "parity/rows_different")),
            Panel(title="response length", metrics=("response/length_mean",)),
            Panel(title="groups without signal", metrics=("reward/groups_without_signal", "reward/groups")),
            Panel(title="seconds a step", metrics=("time/step",)),
        ),
    ),
    (
        "parity",
        (
            Panel(title="tokens and rows that differ", metrics=("parity/tokens_different", "parity/rows_different")),
            Panel(title="share compared", metrics=("parity/share_compared",)),
            Panel(title="largest difference in ulp", metrics=("parity/max_ulp",)),
            Panel(title="KL of the rollout from the trainer", metrics=("parity/k1_kl", "parity/k3_kl")),
            Panel(title="effective sample size", metrics=("parity/ess",)),
            Panel(title="draws that differ", metrics=("parity/draws_different",)),
            Panel(title="weights are equal", metrics=("parity/weights_digest_equal",)),
        ),
    ),
    (
        "policy",
        (
            Panel(title="entropy", metrics=("train/entropy",)),
            Panel(title="KL to the reference", metrics=("train/kl_reference",)),
            Panel(title="gradient norm", metrics=("train/grad_norm",)),
            Panel(title="loss", metrics=("train/loss",)),
            Panel(title="importance ratios", metrics=("train/ratio_min", "train/ratio_max")),
            Panel(title="clipped tokens", metrics=("train/clip_fraction",)),
            Panel(title="learning rate", metrics=("train/learning_rate",)),
            Panel(title="critic: explained variance", metrics=("critic/explained_variance",)),
        ),
    ),
    (
        "rollout",
        (
            Panel(title="reward: range", metrics=("reward/min", "reward/mean", "reward/max")),
            Panel(title="reward within groups", metrics=("reward/group_std_mean",)),
            Panel(title="response length", metrics=("response/length_mean", "response/length_max")),
            Panel(title="truncated responses", metrics=("response/truncated_share",)),
            Panel(title="samples without a reward", metrics=("reward/errors", "environment/errors")),
            Panel(title="turns", metrics=("rollout/turns_mean", "rollout/tool_calls_mean")),
        ),
    ),
    (
        "time",
        (
            Panel(
                title="seconds of each stage",
                metrics=("time/sync", "time/rollout", "time/reward", "time/train", "time/eval", "time/save"),
            ),
            Panel(title="seconds a step", metrics=("time/step",)),
            Panel(
                title="tokens per second", metrics=("perf/rollout_tokens_per_s", "perf/train_tokens_per_s")
            ),
        ),
    ),
    (
        "memory",
        (
            Panel(title="resident memory in GiB", metrics=("memory/trainer_gib", "memory/rollout_gib")),
            Panel(title="GPU memory of a trainer rank in GiB", metrics=("memory/trainer_gpu_gib",)),
        ),
    ),
)  # fmt: skip


def available() -> bool:
    """Whether the package wandb-workspaces is installed."""
    return find_spec("wandb_workspaces") is not None


def check_available() -> None:
    """Raise ConfigError if the package wandb-workspaces is not installed."""
    if not available():
        raise ConfigError(
            "rlsync wandb-workspace needs the package wandb-workspaces. Install rlsync's extra wandb: "
            "pip install 'rlsync[wandb]'"
        )


def build_workspace(project: str, entity: str) -> Any:
    """Make the workspace object. This needs no network."""
    import wandb_workspaces.reports.v2 as reports
    import wandb_workspaces.workspaces as workspaces

    sections = [
        workspaces.Section(
            name=name,
            is_open=index < 2,  # the first two, so that the page loads fast
            panels=[reports.LinePlot(title=panel.title, x="step", y=list(panel.metrics)) for panel in panels],
        )
        for index, (name, panels) in enumerate(SECTIONS)
    ]
    settings = workspaces.WorkspaceSettings(x_axis="step")
    return workspaces.Workspace(entity=entity, project=project, name=NAME, sections=sections, settings=settings)


def save_workspace(project: str, entity: str | None) -> str:
    """Save the workspace in a project, and return its address.

    Args:
        project: The project.
        entity: User or team; None = the default of the account.

    Raises:
        ConfigError: wandb-workspaces is not installed, or wandb's server cannot be used.
        RlsyncError: wandb's server refuses the workspace.
    """
    check_available()
    server = ask_server()
    if not server.logged_in or server.problem:
        why = server.problem or "this machine is not logged in to wandb"
        raise ConfigError(f"{why}. Log in with `wandb login`, and check the network and WANDB_BASE_URL.")
    try:
        owner = entity or wandb.Api(timeout=_API_S).default_entity
        if not owner:
            raise ConfigError("this account of wandb has no default entity. Give one: --entity NAME")
        return str(build_workspace(project, owner).save().url)
    except (wandb.errors.Error, OSError, ValueError) as error:
        raise RlsyncError(f"wandb did not save the workspace of project {project} ({_line(error)})") from error


def save_for_first_run(project: str, entity: str, say: Callable[[str], None]) -> None:
    """Save the workspace if the project has no run but this one. A failure is only told.

    Args:
        project: The project of an online run that has started.
        entity: User or team of the run.
        say: Tells the user.
    """
    if not available():
        return
    try:
        if len(wandb.Api(timeout=_API_S).runs(f"{entity}/{project}", per_page=2)) <= 1:
            say(f"wandb workspace: {save_workspace(project, entity)}")
    except Exception as error:  # noqa: BLE001  (the run does not need the workspace)
        say(f"warning: no workspace was saved for the wandb project {project} ({_line(error)})")


def _line(error: Exception) -> str:
    return redacted(first_line(error))
