"""What alarms do to a run: files, console, checkpoints, the end of the run, and a resume."""

import json

import pytest
import test_loop
from test_loop import BAD, PROBLEMS, _rows

from rlsync.checkpoint.progress import newest
from rlsync.errors import AlarmError

build = test_loop.build  # the fixture

QUIET = ("eval.problems=0", "alarms.not_finite.enabled=false")  # the fakes make no measures of the mismatch
ALL_EQUAL = ("trainer.steps=4", *QUIET)
"""Every response of the fakes is right or wrong for all problems alike, so all rewards are equal."""


def _alarms(folder):
    return [json.loads(line) for line in (folder.path / "alarms.jsonl").read_text().splitlines()]


def _mixed(build, *overrides, **more):
    return build(*QUIET, *overrides, mixed={p.id for p in PROBLEMS}, **more)


def test_a_run_with_nothing_to_learn_says_so_in_its_third_step(build, capsys):
    loop, _, folder = build(*ALL_EQUAL, mixed=set())
    summary = loop.run()
    (told,) = _alarms(folder)
    assert (told["step"], told["name"], told["actions"]) == (3, "all_rewards_equal", ["log", "alert"])
    assert summary.alarms == ["all_rewards_equal at step 3"]
    assert [row["alarms/all_rewards_equal"] for row in _rows(folder)] == [0, 0, 1, 1]
    assert capsys.readouterr().out.count("alarm all_rewards_equal: step 3: reward/std is 0") == 1
    loop, _, folder = _mixed(build, "trainer.steps=4")  # the control
    assert loop.run().alarms == []
    assert _alarms(folder) == []


def test_differing_tokens_are_an_alarm_if_they_do_not_end_the_run(build):
    loop, _, folder = _mixed(build, "parity=warn", counts=BAD)
    assert loop.run().alarms == ["tokens_differ at step 1"]
    assert [row["alarms/tokens_differ"] for row in _rows(folder)] == [1, 1]


CHECKPOINT = ["+alarms.mine.metric=train/loss", "+alarms.mine.below=1", "+alarms.mine.for_steps=2"]


def test_an_alarm_saves_a_checkpoint_that_can_be_resumed(build):
    settings = ["trainer.steps=4", *CHECKPOINT, "+alarms.mine.actions=[log,checkpoint]"]
    loop, log, folder = _mixed(build, *settings)
    loop.run()
    assert [entry for entry in log if entry[0] == "save"] == [("save", "step_2", True), ("save", "step_4", False)]
    progress = newest(folder.path / "checkpoints")[1]
    assert (progress.step, progress.summary.alarms) == (2, ["mine at step 2"])
    whole = _rows(folder)
    loop, log, folder = _mixed(build, *settings, progress=progress)
    assert loop.run().alarms == ["mine at step 2"]  # it is not told again
    assert [entry for entry in log if entry[0] == "save"] == [("save", "step_4", False)]
    assert [told["step"] for told in _alarms(folder)] == [2]
    assert [row["alarms/mine"] for row in _rows(folder)] == [row["alarms/mine"] for row in whole] == [0, 1, 1, 1]


def test_a_checkpoint_that_is_due_anyway_is_not_saved_twice(build):
    loop, log, _ = _mixed(build, "trainer.save_every=2", *CHECKPOINT, "+alarms.mine.actions=[checkpoint]")
    loop.run()
    assert [entry for entry in log if entry[0] == "save"] == [("save", "step_2", True)]


def test_an_alarm_stops_the_run_after_its_step(build):
    loop, log, folder = _mixed(build, "trainer.steps=4", *CHECKPOINT, "+alarms.mine.actions=[checkpoint,stop]")
    with pytest.raises(AlarmError, match=r"alarm mine has stopped the run\. step 2: train/loss is 0, below 1") as ended:
        loop.run()
    assert ended.value.exit_code == 6
    assert [row["step"] for row in _rows(folder)] == [1, 2]
    assert newest(folder.path / "checkpoints")[1].step == 2
    assert log[-1] == ("save", "step_2", True)


def test_a_step_that_a_resume_repeats_tells_its_alarm_again(build):
    settings = ["trainer.steps=4", "trainer.save_every=2", "+alarms.mine.metric=train/loss", "+alarms.mine.below=1"]
    loop, log, folder = _mixed(build, *settings, "+alarms.mine.for_steps=3")
    trained = loop._trainer.train

    def train(samples, version):
        if sum(kind == "train" for kind, *_ in log) == 3:
            raise KeyboardInterrupt
        return trained(samples, version)

    loop._trainer.train = train
    with pytest.raises(KeyboardInterrupt):
        loop.run()
    assert [told["step"] for told in _alarms(folder)] == [3]
    progress = newest(folder.path / "checkpoints")[1]
    assert (progress.step, progress.summary.alarms) == (2, [])
    loop, _, folder = _mixed(build, *settings, "+alarms.mine.for_steps=3", progress=progress)
    assert _alarms(folder) == []
    assert loop.run().alarms == ["mine at step 3"]
    assert [told["step"] for told in _alarms(folder)] == [3]


def test_a_metric_that_does_not_exist_is_told_after_the_first_step(build, capsys):
    loop, _, _ = _mixed(build, "+alarms.mine.metric=reward/maen", "+alarms.mine.below=1")
    (warning,) = loop.run().warnings
    assert warning.startswith("alarms.mine: this run has no metric reward/maen, so the alarm never fires.")
    assert capsys.readouterr().out.count("warning: alarms.mine") == 1
