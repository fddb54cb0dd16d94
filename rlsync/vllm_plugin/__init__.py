"""rlsync's plugin for vLLM, which uses the extension points that vLLM offers.

`register` is the entry point `vllm.general_plugins`, which vLLM calls in each of its processes. It does nothing unless
the process was started as a rollout process of rlsync, so vLLM in the same environment otherwise works as released.
"""

from __future__ import annotations

import atexit
import gc
import os

ENABLE_VARIABLE = "RLSYNC_ROLLOUT"
"""Environment variable that cluster/env.py sets to 1 in rollout processes with exact kernels."""


def register() -> None:
    """Install rlsync's ops in vLLM if this is a rollout process with exact kernels."""
    if os.environ.get(ENABLE_VARIABLE) == "1":
        from rlsync.vllm_plugin.install import install  # imports vLLM's layers, which only these processes need

        install()
        # At exit the garbage collector would visit all objects that vLLM imported, for two seconds in each worker.
        atexit.register(gc.freeze)
