"""Only for a process that started with TRITON_INTERPRET=1, as tests/unit/kernels/test_interpreter.py starts one."""

import os

if os.environ.get("TRITON_INTERPRET") != "1":
    collect_ignore_glob = ["test_*.py"]
