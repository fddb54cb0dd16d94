"""What a training run says of its folder before anything is started."""

import pytest

from rlsync.cli import main
from rlsync.errors import RlsyncError

RECIPE = "recipe=grpo_arithmetic_tiny_cpu"


@pytest.fixture
def train(tmp_path, monkeypatch, capsys):
    """Trains in tmp_path/run until everything is about to be prepared; what was said of a mistake, "" if of none."""

    def begins(*_):
        raise RlsyncError("begins")

    def run(*overrides):
        monkeypatch.setattr("rlsync.train.prepare", begins)
        code = main(["train", RECIPE, f"run.dir={tmp_path}/run", *overrides])
        shown = capsys.readouterr().err
        assert (code, shown.count("\n")) == (1 if shown == "rlsync: begins\n" else 2, 1)
        return "" if code == 1 else shown

    return run


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    (path / "config.yaml").write_text("seed: 0\n")
    for name in ("metrics.jsonl", "rollouts.jsonl"):
        (path / name).touch()
    return path


def test_what_a_failed_start_left_is_no_result(folder, train):
    (folder / "wandb").mkdir()
    (folder / "rollouts.jsonl").write_text('{"step": 1}\n')
    assert train() == ""


@pytest.mark.parametrize("result", ["metrics.jsonl", "checkpoints/step_2/config.json"])
def test_results_are_not_written_over(folder, train, result):
    (folder / result).parent.mkdir(parents=True, exist_ok=True)
    (folder / result).write_text('{"step": 1}\n')
    shown = train()
    assert f"run.dir={folder}: a run's results are there already ({result.removesuffix('/config.json')})" in shown
    assert "run.resume=true" in shown
    assert train("run.resume=true") == ""  # stopped before its first checkpoint was whole
    assert train(f"run.dir={folder}2") == ""


def test_a_run_that_left_nothing_to_go_on_from(folder, train):
    (folder / "metrics.jsonl").write_text('{"step": 1}\n')
    (folder / "summary.json").write_text("{}\n")
    shown = train("run.resume=true")
    assert "run.resume=true" in shown
    assert f"model.path={folder}/checkpoints/step_N" in shown
