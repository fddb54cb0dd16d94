"""A trainer rank writes into real vLLM workers' parameters, whose layout proves itself with vLLM's own loaders."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "direct_sync.py"


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
def test_workers_hold_what_was_written(family, tmp_path):
    run = subprocess.run([sys.executable, SCRIPT, family, tmp_path], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    first, second, stale = json.loads((tmp_path / "differ.json").read_text())
    assert first == second == []
    assert stale == ["model.layers.1.mlp.down_proj.weight"]  # the control: one worker kept an old tensor
