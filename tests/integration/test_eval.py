"""`rlsync eval` with a real engine: its greedy accuracy is what training reported of the same model and problems."""

import json
from collections import Counter

import pytest

from rlsync.cli import main
from rlsync.controller.evaluator import pass_at_k


def _read(run):
    report = json.loads((run.folder / "eval.json").read_text())
    rows = [json.loads(line) for line in (run.folder / "samples.jsonl").read_text().splitlines()]
    return report["sets"]["held_out"], rows


def test_an_evaluation_agrees_with_the_training(launcher, reference, leaves_nothing):
    """The evaluation has another TP, no trainer, and also sampled responses."""
    run = launcher.run("rollout.tp=1", "eval.samples=4", "eval.k=[1,2]", verb="eval")
    assert run.code == 0, run.out + run.err
    held_out, rows = _read(run)
    first = reference.metrics[0]
    assert held_out["accuracy"] == first["eval/accuracy_initial"] == sum(r["reward"] for r in rows[:32]) / 32
    assert held_out["problems"] == first["eval/problems"] == 32
    assert [row["sample"] for row in rows] == [None] * 32 + [0, 1, 2, 3] * 32
    assert len({row["seed"] for row in rows[32:]}) == 128
    right = Counter(row["problem"] for row in rows[32:] if row["reward"] == 1.0)
    assert 0 < right.total() < 128
    estimate = sum(pass_at_k(4, right[row["problem"]], 2) for row in rows[:32]) / 32
    assert held_out["pass@2"] == pytest.approx(estimate, abs=1e-12)
    assert held_out["pass@1"] == pytest.approx(held_out["mean@4"]) == pytest.approx(right.total() / 128)
    assert "held_out" in run.out
    assert f"{held_out['pass@2']:.3f}" in run.out
    assert not (run.folder / "metrics.jsonl").exists()


def test_a_checkpoint_agrees_with_the_end_of_its_training(launcher, reference, leaves_nothing):
    """Its folder alone is enough to name it; the training's files beside stay as they are."""
    before = (reference.folder / "config.yaml").read_text()
    saved = f"model.path={reference.folder / 'checkpoints/step_3'}"
    run = launcher.run(saved, "rollout.tp=1", f"run.dir={reference.folder}", verb="eval")
    assert run.code == 0, run.out + run.err
    report = json.loads((reference.folder / "eval.json").read_text())
    assert report["sets"]["held_out"]["accuracy"] == reference.metrics[-1]["eval/accuracy"]
    assert (reference.folder / "config.yaml").read_text() == before


def test_an_evaluation_is_not_written_over(tmp_path, capsys):
    (tmp_path / "eval.json").write_text("{}")
    assert main(["eval", "recipe=grpo_arithmetic_tiny_cpu", f"run.dir={tmp_path}"]) == 2
    assert "already has the results of an evaluation (eval.json)" in capsys.readouterr().err
    assert (tmp_path / "eval.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["eval.problems=0"], ["eval.problems=0"]),
        (["eval.k=[4]"], ["eval.k=[4]", "eval.samples=0"]),
        (["eval.only=[gsm8k]"], ["gsm8k", "held_out"]),
        (
            ["+data@eval.sets.x=file", "eval.sets.x.path=rows.jsonl", "eval.sets.x.max_prompt_tokens=32"],
            ["evaluation set x", "no problems in the split held_out", "rows.jsonl"],
        ),
        (["model.path=./missing"], ["./missing", "config.json"]),
    ],
)
def test_mistakes(tmp_path, monkeypatch, capsys, overrides, words):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "1+1=", "answer": "2"}\n')
    monkeypatch.chdir(tmp_path)
    code = main(["eval", "recipe=grpo_arithmetic_tiny_cpu", f"run.dir={tmp_path}/run", *overrides])
    shown = capsys.readouterr().err
    assert code == 2, shown
    assert all(word in shown for word in words), shown
    assert not (tmp_path / "run").exists()
