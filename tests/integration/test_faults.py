"""Planted faults are caught at their step; dead processes and Ctrl-C end the run cleanly."""

import json
import os
import signal

import psutil
import pytest
from support import descendants, wait_for_step

LONG = ("trainer.steps=500",)
NOTICED_S = 180
"""A run that does not notice goes on for its 500 steps, or waits for an hour (cluster.stage_timeout_s)."""


def test_one_ulp_in_one_worker_is_caught(launcher, reference, leaves_nothing):
    run = launcher.run("parity.fault=ulp", "parity.fault_step=2", "parity.on_divergence=trace")
    assert run.code == 3, run.out + run.err
    assert [row["parity/tokens_different"] > 0 for row in run.metrics] == [False, True]
    assert run.metrics[1]["parity/weights_digest_equal"] == 1  # planted after the digest: only the monitor can see it
    assert "step 2" in run.err
    trace = json.loads((run.folder / "traces" / "step_2.json").read_text())
    assert trace["place"]["ranks"] == [1]
    assert f"First difference: layers.{trace['place']['layer']}." in run.err
    assert "TP rank 1 of 2" in run.err


def test_one_stale_shard_is_caught(launcher, reference, leaves_nothing):
    run = launcher.run("parity.fault=stale_shard", "parity.fault_step=2")
    assert run.code == 3, run.out + run.err
    assert [row["parity/weights_digest_equal"] for row in run.metrics] == [1, 0]
    assert "down_proj.weight" in run.err
    assert "step 2" in run.err


@pytest.mark.parametrize("victim", ["trainer rank", "TP worker 1"])
def test_a_killed_process_ends_the_run_and_is_named(launcher, reference, leaves_nothing, victim):
    process, folder = launcher.start(*LONG)
    wait_for_step(folder, process, 2)
    _find(process, victim).kill()
    run = launcher.finish(process, folder, limit_s=NOTICED_S)
    assert run.code == 4, run.out + run.err
    assert victim in run.err
    assert "Traceback" not in run.err


def test_ctrl_c_ends_the_run(launcher, reference, leaves_nothing):
    process, folder = launcher.start(*LONG, "rollout.tp=1")
    wait_for_step(folder, process, 2)
    os.kill(process.pid, signal.SIGINT)
    run = launcher.finish(process, folder, limit_s=NOTICED_S)
    assert run.code == 130
    assert "interrupted" in run.err
    assert "Traceback" not in run.err


def _find(process, victim: str) -> psutil.Process:
    if victim.startswith("TP worker"):
        marks = ("VllmWorker-1", "Worker_TP1")
        return next(p for p in descendants(process) if any(m in " ".join(p.cmdline()) for m in marks))
    actors = [p for p in descendants(process) if any("ray::TrainerActor" in part for part in p.cmdline())]
    return actors[0]
