"""Faults in a real engine are found by the monitor in the first rollouts after them, and the trace names each one."""

import json
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
