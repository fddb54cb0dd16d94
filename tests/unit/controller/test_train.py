"""What a training run reports about its folder, and what it does not change there, before it trains."""

from contextlib import nullcontext
from unittest.mock import MagicMock

import pytest
import torch

from rlsync.checkpoint.progress import Progress, keep
from rlsync.checkpoint.state import save_state
from rlsync.cli import main
from rlsync.config.compose import compose_train, to_yaml
from rlsync.errors import ConfigError, RlsyncError
from rlsync.telemetry.run_lock import LOCK

RECIPE = ["recipe=grpo_arithmetic_tiny_cpu", "telemetry=files_only", "trainer.steps=4"]
LORA, PPO = "model.lora.rank=4", "algorithm=ppo"


class FakeCluster:
    """A fake cluster whose trainer loads any state, or fails to."""

    failure = None

    def __init__(self, *_, **__) -> None: ...

    def on_trainers(self, stage, call):
        if self.failure:
            raise self.failure

    def close(self): ...


def _begins(*_, **__):
    raise RlsyncError("begins")


@pytest.fixture
def train(tmp_path, monkeypatch, capsys):
    """Runs with fakes in tmp_path/run until the first step, and returns the error message, "" if there is none."""
    monkeypatch.setattr("rlsync.controller.train.prepare", MagicMock())
    monkeypatch.setattr("rlsync.controller.train.PromptStream", MagicMock())
    monkeypatch.setattr("rlsync.controller.train.Cluster", FakeCluster)
    monkeypatch.setattr("rlsync.controller.train.ray_session", lambda *_: nullcontext())
    monkeypatch.setattr("rlsync.controller.train.TrainingLoop", _begins)

    def run(*overrides):
        code = main(["train", *RECIPE, f"run.dir={tmp_path}/run", *overrides])
        shown = capsys.readouterr().err
        assert (code, shown.count("\n")) == (1 if shown == "rlsync: begins\n" else 2, 1)
        return "" if code == 1 else shown

    return run


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    (path / "config.yaml").write_text(to_yaml(compose_train(RECIPE)))
    for name in ("metrics.jsonl", "rollouts.jsonl"):
        (path / name).touch()
    return path


@pytest.fixture
def stopped(folder):
    """The folder of a run that was stopped in its third step."""
    for name in ("metrics.jsonl", "rollouts.jsonl"):
        (folder / name).write_text("".join(f'{{"step": {step}}}\n' for step in (1, 2, 3)))
    checkpoint = folder / "checkpoints/step_2"
    save_state(checkpoint, {}, torch.tensor([2, 2, 0]))
    keep(checkpoint, Progress(step=2, saved=[2]))
    return folder


def _files(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != LOCK
    }


def test_what_a_failed_start_left_is_no_result(folder, train):
    (folder / "wandb").mkdir()
    (folder / "rollouts.jsonl").write_text('{"step": 1}\n')
    assert train() == ""


@pytest.mark.parametrize("result", ["metrics.jsonl", "checkpoints/step_2/config.json"])
def test_results_are_not_written_over(folder, train, result):
    (folder / result).parent.mkdir(parents=True, exist_ok=True)
    (folder / result).write_text('{"step": 1}\n')
    before = _files(folder)
    shown = train()
    assert f"run.dir={folder} already has the results of a run ({result.removesuffix('/config.json')})" in shown
    assert "run.resume=true" not in shown  # because no checkpoint has a state
    assert _files(folder) == before
    assert train(f"run.dir={folder}2") == ""
    assert train("run.resume=true", "trainer.save_every=1") == ""  # stopped before its first checkpoint was complete


def test_a_refusal_offers_a_resume_where_there_is_a_state(stopped, train):
    assert "run.resume=true" in train()


def _metrics(folder, steps):
    (folder / "metrics.jsonl").write_text("".join(f'{{"step": {step}}}\n' for step in range(1, steps + 1)))


@pytest.mark.parametrize(("steps", "save_every"), [(1, 0), (3, 2)])
def test_a_run_that_left_nothing_to_go_on_from(folder, train, steps, save_every):
    _metrics(folder, steps)
    before = _files(folder)
    shown = train("run.resume=true", f"trainer.save_every={save_every}")
    assert f"the run in {folder} has reached step {steps}" in shown
    assert f"model.path={folder}/checkpoints/step_N" in shown
    assert _files(folder) == before
    assert train("run.resume=true", f"trainer.save_every={steps}") == ""  # the control: no state was due yet


def test_a_run_that_has_ended_without_a_state(folder, train):
    _metrics(folder, 1)
    (folder / "summary.json").write_text("{}\n")
    assert f"the run in {folder} has reached step 1" in train("run.resume=true", "trainer.save_every=2")


@pytest.mark.parametrize(
    ("was", "now", "told"),
    [
        ([], [LORA], "model.lora.rank: 0 -> 4"),
        ([LORA], ["model.lora.rank=8"], "model.lora.rank: 4 -> 8"),
        ([], [PPO], "algorithm.advantage: grpo -> gae"),
        ([PPO], ["algorithm=grpo"], "algorithm.advantage: gae -> grpo"),
    ],
)
def test_a_resume_that_trains_other_tensors_is_refused(stopped, train, was, now, told):
    (stopped / "config.yaml").write_text(to_yaml(compose_train([*RECIPE, *was])))
    before = _files(stopped)
    assert f"run.resume=true: {told}, so the state in {stopped}/checkpoints/step_2 " in train("run.resume=true", *now)
    assert _files(stopped) == before
    assert train("run.resume=true", *was, "algorithm.clip_low=0.1") == ""  # the control


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ("config.yaml", "config.yaml"),
        ("checkpoints/step_2/progress.json", "progress.json"),
        ("checkpoints/step_2/state/.metadata", "checkpoints/step_2/state"),
    ],
)
@pytest.mark.parametrize("text", ["{", None])
def test_a_resume_from_a_broken_folder_is_refused(stopped, train, broken, told, text):
    (stopped / broken).unlink()
    if text:
        (stopped / broken).write_text(text)
    before, shown = _files(stopped), train("run.resume=true")
    assert shown.startswith("rlsync: run.resume=true: ")
    assert str(stopped) in shown
    assert told in shown
    assert _files(stopped) == before


def test_a_folder_changes_when_the_state_has_loaded(stopped, train, monkeypatch):
    before = _files(stopped)
    monkeypatch.setattr(FakeCluster, "failure", ConfigError("other tensors"))
    assert "other tensors" in train("run.resume=true")
    assert _files(stopped) == before
    monkeypatch.setattr(FakeCluster, "failure", None)
    assert train("run.resume=true") == ""
    assert (stopped / "metrics.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n'
