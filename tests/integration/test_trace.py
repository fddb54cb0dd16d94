"""Faults in a real engine are found by the monitor in the first rollouts after them, and the trace names each one."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from trace_faults import FAULTS


@pytest.fixture(scope="module")
def traces(tmp_path_factory):
    folder = tmp_path_factory.mktemp("traces")
    script = Path(__file__).with_name("trace_faults.py")
    subprocess.run([sys.executable, script, folder], check=True, timeout=600)
    return {each["fault"]: each for each in json.loads((folder / "traces.json").read_text())}


def test_without_a_fault_nothing_differs(traces):
    assert (traces["none"]["tokens"], traces["none"]["rows"]) == (0, 0)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "_"))
def test_the_trace_names_the_op_and_the_rank(traces, fault):
    found = traces[fault.name]
    assert found["rows"] >= found["tokens"]
    assert found["rows"] > 0
    assert (found["op"], tuple(found["ranks"])) == (fault.op, fault.ranks)
    assert found["ulp"] > 0
    assert found["repeats"] == (fault.name != "an op that is not deterministic")
    assert found["seconds"] < 60


def test_the_rows_show_more_than_the_sampled_tokens(traces):
    """One ulp in one activation leaves most sampled tokens' log-probs as they are, but changes the rows."""
    found = traces["one ulp in one op of one layer"]
    assert found["tokens"] < found["rows"]


def _trace(*arguments):
    command = [sys.executable, "-m", "rlsync.cli", "trace", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_a_saved_rollout_of_an_exact_run_agrees(reference):
    done = _trace(reference.folder, "--step", 3, "--sample", 5)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "agrees with the trainer at every op" in done.stdout
    report = json.loads((reference.folder / "traces" / "step_3_sample_5.json").read_text())
    assert report["same_rollout"]
    assert {each["layer"] for each in report["growth"]} >= {-1, 0, 1}


def test_stock_kernels_part_at_a_named_op(reference, tmp_path):
    shutil.copy(reference.folder / "rollouts.jsonl", tmp_path)
    config = (reference.folder / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(config.replace("mode: invariant", "mode: native"))
    done = _trace(tmp_path)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "First difference: layers.0." in done.stdout


def test_mistakes_are_named(reference, tmp_path):
    for arguments, message in (
        ((tmp_path,), "is not the configuration of a run"),
        ((reference.folder, "--step", 9), "has no such rollout"),
        ((reference.folder, "--sample", 999), "has no such rollout"),
    ):
        done = _trace(*arguments)
        assert done.returncode == 2
        assert message in done.stderr
