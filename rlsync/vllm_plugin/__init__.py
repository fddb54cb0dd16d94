"""rlsync inside vLLM, through the extension points that vLLM offers plugins.

`register` is the `vllm.general_plugins` entry point: vLLM calls it in every process that imports it. It does
nothing unless the process was started as an rlsync rollout worker, so a stock vLLM in the same environment
stays stock.
"""

from __future__ import annotations

import atexit
import gc
import os

ENABLE_VARIABLE = "RLSYNC_ROLLOUT"
"""Set to 1 by the cluster (cluster/env.py) in rollout processes with exact kernels."""


def register() -> None:
    if os.environ.get(ENABLE_VARIABLE) == "1":
        from rlsync.vllm_plugin.install import install  # imports vLLM's layers: only where they are wanted

        install()
        # The interpreter's last collections would walk everything vLLM imported: two seconds of CPU per worker.
        atexit.register(gc.freeze)
