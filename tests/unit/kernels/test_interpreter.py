"""Runs tests/interpreter in a process of its own, because Triton decides at its import whether it interprets."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[2] / "interpreter"


def test_gpu_kernels_in_the_interpreter():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", str(TESTS)],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout
